/* digest.h - SHA-256 (FIPS 180-4, by OpenSSL), as 64 lower-case hexadecimal digits. */
#ifndef OCT_FILE_DIGEST_H
#define OCT_FILE_DIGEST_H
#include <stddef.h>

enum { OCT_SHA256_TEXT = 65 };        /* digits and the final 0 */

/* In pieces: begin, add, end. `end` frees the digest and may be given NULL; `text` NULL discards.
 */
typedef struct evp_md_ctx_st oct_digest;
int oct_digest_begin(oct_digest **digest);
int oct_digest_add(oct_digest *digest, const void *data, size_t bytes);
int oct_digest_end(char text[OCT_SHA256_TEXT], oct_digest *digest);

#endif
