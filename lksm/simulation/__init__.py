"""App lifecycles on a virtual clock: what each merge policy saves of a workload, and what it costs.

The flow, one way only: a TOML file gives a `Workload`; `timeline` makes events of it and a seed; `script`
adds what perfect merging would save; `run` drives one policy over the events; `results` are plain data.
"""
