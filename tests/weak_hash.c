/* Hashes that collide on purpose, to be lent to the core by test_collisions.py. */
#include <stddef.h>
#include <stdint.h>

/* FNV-1a, cut to eight bits. */
uint64_t hash_8_bits(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	uint64_t hash = 0xcbf29ce484222325u ^ *(const uint64_t *)secret;
	(void)secret_size;
	for (size_t i = 0; i < nr_bytes; i++)
		hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
	return (hash >> 32) & 0xff;
}

/* The same eight bits, where the forest looks for the root: in the high ones. */
uint64_t hash_8_high_bits(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	return hash_8_bits(bytes, nr_bytes, secret, secret_size) << 56;
}

uint64_t hash_0_bits(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	(void)bytes, (void)nr_bytes, (void)secret, (void)secret_size;
	return 0;
}

void generate_secret(void *secret, uint64_t seed)
{
	for (size_t i = 0; i < 24; i++)
		((uint64_t *)secret)[i] = seed + i;
}
