/* digest.c - see digest.h. */
#include "core/file/digest.h"

#include <openssl/evp.h>

#include "core/error.h"
#include "core/file/system.h"
#include "core/memory.h"
#include "core/octet.h"

enum { CHUNK_BYTES = 1 << 20, SHA256_BYTES = 32 };

int oct_digest_begin(oct_digest **result)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    if (!digest) return oct_fail_memory(64);
    if (EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(digest);
        return oct_fail("sha256: OpenSSL does not offer it");
    }
    *result = digest;
    return 0;
}

int oct_digest_add(oct_digest *digest, const void *data, size_t bytes)
{
    return EVP_DigestUpdate(digest, data, bytes) == 1 ? 0 : oct_fail("sha256: OpenSSL failed");
}

int oct_digest_end(char text[OCT_SHA256_TEXT], oct_digest *digest)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    int status = 0;
    if (text && (EVP_DigestFinal_ex(digest, bytes, &length) != 1 || length != SHA256_BYTES))
        status = oct_fail("sha256: OpenSSL failed");
    EVP_MD_CTX_free(digest);
    if (!text || status != 0) return status;
    for (int i = 0; i < SHA256_BYTES; i++) {
        text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    text[2 * SHA256_BYTES] = 0;
    return 0;
}

int oct_sha256(char *text, const void *data, int64_t bytes)
{
    if (bytes < 0) return oct_fail("sha256: %lld bytes", (long long)bytes);
    oct_digest *digest = NULL;
    OCT_TRY(oct_digest_begin(&digest));
    if (oct_digest_add(digest, data, (size_t)bytes) != 0) {
        oct_digest_end(NULL, digest);
        return -1;
    }
    return oct_digest_end(text, digest);
}

static int add_file(oct_digest *digest, const char *path)
{
    int fd;
    int64_t size;
    OCT_TRY(oct_open_regular(&fd, &size, "sha256", path));
    char *chunk = oct_malloc(CHUNK_BYTES);
    int status = chunk ? 0 : -1;
    for (int64_t at = 0; at < size && status == 0; at += CHUNK_BYTES) {
        size_t bytes = size - at < CHUNK_BYTES ? (size_t)(size - at) : CHUNK_BYTES;
        status = oct_read_exactly(fd, chunk, bytes, at, "sha256", path);
        if (status == 0) status = oct_digest_add(digest, chunk, bytes);
    }
    oct_free(chunk);
    oct_sys_close(fd);
    return status;
}

int oct_file_sha256(char *text, const char *path)
{
    oct_digest *digest = NULL;
    OCT_TRY(oct_digest_begin(&digest));
    if (add_file(digest, path) != 0) {
        oct_digest_end(NULL, digest);
        return -1;
    }
    return oct_digest_end(text, digest);
}
