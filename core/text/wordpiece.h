/* wordpiece.h - BERT's tokenizer: text in, ids out (Devlin et al., 2018; Wu et al., 2016).
 *
 * In this order: special tokens that stand in the text literally; clean (controls and U+FFFD go,
 * white space becomes a space); Chinese characters become words of their own; NFD, and the
 * nonspacing marks go; lower case; cut at white space and at punctuation; each word greedily into
 * its longest pieces. A word of more than 100 characters, or with a part that no piece covers, is
 * [UNK]. The ids are those of Hugging Face's `tokenizers` (BertWordPieceTokenizer). */
#ifndef OCT_TEXT_WORDPIECE_H
#define OCT_TEXT_WORDPIECE_H
#include <stdint.h>

#include "core/octet.h"
#include "core/text/vocabulary.h"

enum { OCT_WORD_CHARS = 100 };     /* a longer word is [UNK] */
enum { OCT_WORD_BYTES = 4 * OCT_WORD_CHARS };

/* What a byte of the text asks for; a value from 0x30 on is the byte of a word itself. */
enum { OCT_BYTE_SPACE, OCT_BYTE_DROPPED, OCT_BYTE_PUNCTUATION, OCT_BYTE_BEYOND };

struct oct_wordpiece {
    oct_vocabulary vocabulary;
    int flags;                     /* OCT_WORDPIECE_LOWER ... */
    int32_t unknown, start, separator, padding, mask;      /* ids; padding and mask may be -1 */
    uint64_t piece_seed;           /* the hash of "##" */
    uint8_t byte_kind[256];
    int32_t punctuation[128];      /* id of an ASCII punctuation sign */
};

/* Growing ids. One thread's. */
typedef struct oct_id_list {
    int32_t *ids;
    int64_t size, room;
} oct_id_list;

/* Make room for `more` further ids; -1 where memory ends. */
int oct_id_list_grow(oct_id_list *list, int64_t more);
static inline int oct_id_list_reserve(oct_id_list *list, int64_t more)
{
    return list->room - list->size >= more ? 0 : oct_id_list_grow(list, more);
}
/* Append the ids of a text, without [CLS] and [SEP]. -1 where memory ends (*bad is then -1) or the
 * text is not UTF-8 (*bad: the offset of the byte). */
int oct_wordpiece_append(oct_id_list *list, int64_t *bad, const oct_wordpiece *wordpiece,
                         const char *text, int64_t bytes);

#endif
