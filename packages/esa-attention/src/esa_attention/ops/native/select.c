/* The choice among scored tokens, exactly as select_topk of the dilated scores: by dilated score, own score, lower index.

   The largest score of every block of tokens tells beforehand where the best can be: a token as good as its block's best
   has `proximity` neighbours in that block which dilation makes as good. So the best k / (proximity + 1) blocks hold k
   tokens among them, and their worst is a bound below which nothing is chosen. What reaches the bound is few. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The k-th largest of n numbers (k from 1), which are left in another order: quickselect, median of three. */
#define KTH(NAME, TYPE)                                                                                                \
  static TYPE NAME(TYPE *of, ptrdiff_t n, ptrdiff_t k) {                                                               \
    ptrdiff_t low = 0, high = n - 1, wanted = k - 1;                                                                   \
    while (low < high) {                                                                                               \
      TYPE a = of[low], b = of[low + (high - low) / 2], c = of[high];                                                  \
      TYPE pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);                                  \
      ptrdiff_t i = low, j = high;                                                                                     \
      while (i <= j) {                                                                                                 \
        while (of[i] > pivot) i++;                                                                                     \
        while (of[j] < pivot) j--;                                                                                     \
        if (i <= j) {                                                                                                  \
          TYPE held = of[i];                                                                                           \
          of[i++] = of[j];                                                                                             \
          of[j--] = held;                                                                                              \
        }                                                                                                              \
      }                                                                                                                \
      if (wanted <= j) high = j;                                                                                       \
      else if (wanted >= i) low = i;                                                                                   \
      else break;                                                                                                      \
    }                                                                                                                  \
    return of[wanted];                                                                                                 \
  }
KTH(kth_score, float)
KTH(kth_key, uint64_t)

/* Unsigned numbers in the order of the floats; both zeros are one. */
static inline uint64_t ordered(float x) {
  x = x == 0 ? 0 : x;
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 31 ? (uint32_t)~bits : bits | 0x80000000u;
}

/* Blocks of `size` tokens: their best into `best`; what is left over belongs to none. Returns how many there are, or -1
   if a score is NaN. */
static ptrdiff_t block_bests(const float *own, ptrdiff_t count, ptrdiff_t size, float *best) {
  ptrdiff_t blocks = count / size;
  int strange = 0;
  for (ptrdiff_t b = 0; b < blocks; b++) {
    const float *of = own + b * size;
    float top[8]; /* so many at a time, as one compare of a vector */
    memcpy(top, of, sizeof top);
    for (ptrdiff_t t = 0; t < size; t += 8)
      for (int i = 0; i < 8; i++) {
        top[i] = of[t + i] > top[i] ? of[t + i] : top[i];
        strange |= of[t + i] != of[t + i];
      }
    for (int i = 1; i < 8; i++) top[0] = top[i] > top[0] ? top[i] : top[0];
    best[b] = top[0];
  }
  for (ptrdiff_t t = blocks * size; t < count; t++) strange |= own[t] != own[t];
  return strange ? -1 : blocks;
}

/* The k best of `count` tokens into `chosen` (k, ascending).

   size: of a block, a multiple of 8, above `proximity`; there must be at least k / (proximity + 1) blocks.
   best: scratch (2 * blocks). near, keys, sorted: scratch (room) each.

   Returns k; or -1 if this is not the way for these scores: NaN, or more than `room` tokens that reach the bound. */
ptrdiff_t choose(const float *own, ptrdiff_t count, ptrdiff_t proximity, ptrdiff_t k, ptrdiff_t size, float *best,
                 int64_t *near, uint64_t *keys, uint64_t *sorted, ptrdiff_t room, int64_t *chosen) {
  ptrdiff_t blocks = block_bests(own, count, size, best), needed = (k + proximity) / (proximity + 1), found = 0;
  if (blocks < needed) return -1;
  memcpy(best + blocks, best, sizeof(float) * blocks);
  float bound = kth_score(best + blocks, blocks, needed);
  ptrdiff_t next = 0; /* the first token that is not yet among those near */
  for (ptrdiff_t b = 0; b <= blocks; b++) {
    if (b < blocks && best[b] < bound) continue;
    ptrdiff_t end = b < blocks ? (b + 1) * size : count;
    for (ptrdiff_t t = b * size; t < end; t++) {
      if (own[t] < bound) continue;
      ptrdiff_t from = t - proximity > next ? t - proximity : next, to = t + proximity < count ? t + proximity : count - 1;
      if (found + to - from + 1 > room) return -1;
      for (ptrdiff_t i = from; i <= to; i++) near[found++] = i;
      next = to + 1 > next ? to + 1 : next;
    }
  }
  if (found < k) return -1;
  for (ptrdiff_t n = 0; n < found; n++) {
    ptrdiff_t t = near[n], low = t < proximity ? 0 : t - proximity, high = t + proximity < count ? t + proximity : count - 1;
    float top = own[low];
    for (ptrdiff_t i = low + 1; i <= high; i++) top = own[i] > top ? own[i] : top;
    keys[n] = ordered(top) << 32 | ordered(own[t]);
  }
  memcpy(sorted, keys, sizeof(uint64_t) * found);
  uint64_t least = kth_key(sorted, found, k);
  ptrdiff_t above = 0, written = 0;
  for (ptrdiff_t n = 0; n < found; n++) above += keys[n] > least;
  ptrdiff_t equal = k - above; /* of those that equal the worst chosen: the lower indices */
  for (ptrdiff_t n = 0; n < found; n++)
    if (keys[n] > least || (keys[n] == least && equal-- > 0)) chosen[written++] = near[n];
  return written;
}
