/* What a decoding step on a CPU spends its time in, at the memory's speed: scores of one query against the index, and
   attention of one token over far tokens, which lie scattered, and near ones.

   Compiled for numbers of one kind: PER_WORD is 1 (float32), 2 (bfloat16) or 4 (int8). Rows are read as 32-bit words;
   the j-th numbers of all words of a vector are widened to float32 by shifts, so that nothing crosses its lanes.
   Queries are brought into that order once, and sums out of it at the end.

   Threads are OpenMP's, of the library that torch has loaded: nothing is linked here. What a thread does depends on the
   sizes and the number of threads only, so that the same call gives the same bits. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define STEP (LANES * PER_WORD) /* numbers in a vector of words */
#define TOKENS 32               /* of a unit of work: its keys and values of a head lie in the nearest caches */
#define QUERIES 4               /* that share one reading of a row */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t words __attribute__((vector_size(4 * LANES)));

#if PER_WORD == 1
typedef float number;
#elif PER_WORD == 2
typedef uint16_t number;
#else
typedef int8_t number;
#endif

static inline words load_words(const number *row) {
  words held;
  memcpy(&held, row, sizeof held);
  return held;
}

static inline floats load(const float *from) {
  floats held;
  memcpy(&held, from, sizeof held);
  return held;
}

static inline void save(float *to, floats held) { memcpy(to, &held, sizeof held); }

/* The j-th number of every word. */
static inline floats widened(words held, int j) {
#if PER_WORD == 1
  (void)j;
  return (floats)held;
#elif PER_WORD == 2
  return (floats)(j ? held & (int32_t)0xffff0000 : held << 16);
#else
  return __builtin_convertvector((held << (24 - 8 * j)) >> 24, floats);
#endif
}

/* Where the number at place x of a row stands in the order of widened vectors. */
static inline ptrdiff_t place(ptrdiff_t x) {
  ptrdiff_t within = x % STEP;
  return x - within + within % PER_WORD * LANES + within / PER_WORD;
}

static inline float total(floats held) {
  typedef float half_t __attribute__((vector_size(2 * LANES)));
  typedef float quarter_t __attribute__((vector_size(LANES)));
  half_t halves[2];
  quarter_t quarters[2];
  memcpy(halves, &held, sizeof held);
  halves[0] += halves[1];
  memcpy(quarters, &halves[0], sizeof halves[0]);
  quarters[0] += quarters[1];
  return (quarters[0][0] + quarters[0][2]) + (quarters[0][1] + quarters[0][3]);
}

/* Scores (count) of one query (width, a multiple of STEP) against rows that begin `apart` numbers from each other.
   `scale` is a factor for every row, or null; `arranged` is scratch (width). */
void scores(const number *rows, ptrdiff_t apart, ptrdiff_t count, ptrdiff_t width, const float *query,
            const float *scale, float *arranged, float *out, int threads) {
  for (ptrdiff_t x = 0; x < width; x++) arranged[place(x)] = query[x];
#pragma omp parallel for schedule(static) num_threads(threads)
  for (ptrdiff_t i = 0; i < count; i++) {
    const number *row = rows + i * apart;
    floats sum = {0};
    for (ptrdiff_t x = 0; x < width; x += STEP) {
      words held = load_words(row + x);
      for (int j = 0; j < PER_WORD; j++) sum += widened(held, j) * load(arranged + x + j * LANES);
    }
    out[i] = scale ? total(sum) * scale[i] : total(sum);
  }
}

#if PER_WORD <= 2

struct attention {
  const number *store;  /* (capacity, 2, kv_heads, dim): keys and values */
  const int64_t *far;   /* (num_far) */
  const number *keys;   /* (kv_heads, num_near, dim) */
  const number *values; /* (kv_heads, num_near, dim) */
  const float *queries; /* (2, kv_heads, group, dim), scaled: far, near */
  float *arranged;      /* scratch of the same shape */
  float *states;        /* scratch (threads, kv_heads * group, dim + 2) */
  float *out;           /* (kv_heads, group, dim) */
  ptrdiff_t num_far, num_near, kv_heads, group, dim; /* dim: a multiple of 2 * LANES */
  ptrdiff_t key_head, key_row, value_head, value_row; /* numbers from one head, or row, to the next */
  ptrdiff_t capacity, threads;
};

/* Some tokens of one head. */
struct unit {
  const number *keys[TOKENS], *values[TOKENS];
  ptrdiff_t tokens, head;
  int near;
};

/* e^x for x <= 0, by 2^n e^r: within 1.1 units of the last place down to -87; NaN stays NaN. */
static inline floats exponential(floats x) {
  const floats zero = {0}, least = zero - 87.0f;
  words below = x < least;
  x = (floats)((below & (words)least) | (~below & (words)x));
  const floats magic = zero + 12582912.0f; /* 1.5 * 2^23: adding it leaves a whole number in the lowest bits */
  floats n = x * 1.44269504f + magic;
  words exponent = (words)n << 23;
  n -= magic;
  floats r = x - n * 0.693359375f;
  r += n * 2.12194440e-4f;
  floats p = r * 1.98756915e-4f + 1.39819995e-3f;
  p = p * r + 8.33345205e-3f;
  p = p * r + 4.16657962e-2f;
  p = p * r + 1.66666657e-1f;
  p = p * r + 5.00000012e-1f;
  p = p * r * r + r + 1.0f;
  return (floats)((words)p + exponent) + (x - x);
}

/* Scores of `count` queries against the keys of a unit, while those of the next are fetched: a line at a time, since a
   processor waits for a burst of them. */
static inline __attribute__((always_inline)) void score_unit(const int count, const struct unit *unit,
                                                              const struct unit *next, ptrdiff_t dim,
                                                              const float *queries, float (*scores)[TOKENS]) {
  for (ptrdiff_t t = 0; t < unit->tokens; t++) {
    floats sums[QUERIES] = {{0}};
    for (ptrdiff_t x = 0; x < dim; x += STEP) {
      words held = load_words(unit->keys[t] + x);
      __builtin_prefetch(next->keys[t] + x, 0, 2);
      for (int j = 0; j < PER_WORD; j++) {
        floats key = widened(held, j);
        for (int i = 0; i < count; i++) sums[i] += key * load(queries + i * dim + x + j * LANES);
      }
    }
    for (int i = 0; i < count; i++) scores[i][t] = total(sums[i]);
  }
}

/* Scores to weights, with the running maximum and sum of a query; what was summed before is scaled down. */
static inline void weigh(ptrdiff_t tokens, float *scores, float *maximum, float *sum, float *summed, ptrdiff_t dim) {
  float top = *maximum;
  for (ptrdiff_t t = 0; t < tokens; t++) top = scores[t] > top ? scores[t] : top;
  for (ptrdiff_t t = tokens; t < TOKENS; t++) scores[t] = top; /* any number: not read again, and taken off below */
  float before = expf(*maximum - top);
  for (ptrdiff_t t = 0; t < TOKENS; t += LANES) save(scores + t, exponential(load(scores + t) - top));
  for (ptrdiff_t t = tokens; t < TOKENS; t++) scores[t] = 0;
  floats sums = {0};
  for (ptrdiff_t t = 0; t < TOKENS; t += LANES) sums += load(scores + t);
  *sum = *sum * before + total(sums);
  *maximum = top;
  if (before != 1.0f)
    for (ptrdiff_t x = 0; x < dim; x++) summed[x] *= before;
}

/* Adds the weighted values of a unit for `count` queries, two vectors of numbers at a time; fetches as above. */
static inline __attribute__((always_inline)) void add_unit(const int count, const struct unit *unit,
                                                            const struct unit *next, ptrdiff_t dim,
                                                            float (*weights)[TOKENS], float *summed) {
  for (ptrdiff_t x = 0; x < dim; x += 2 * LANES) {
    floats low[QUERIES], high[QUERIES];
    for (int i = 0; i < count; i++) low[i] = load(summed + i * dim + x), high[i] = load(summed + i * dim + x + LANES);
    for (ptrdiff_t t = 0; t < unit->tokens; t++) {
      const number *row = unit->values[t] + x;
      __builtin_prefetch(next->values[t] + x, 0, 2);
#if PER_WORD == 1
      __builtin_prefetch(next->values[t] + x + LANES, 0, 2);
      floats first = (floats)load_words(row), second = (floats)load_words(row + LANES);
#else
      words held = load_words(row);
      floats first = widened(held, 0), second = widened(held, 1);
#endif
      for (int i = 0; i < count; i++) low[i] += weights[i][t] * first, high[i] += weights[i][t] * second;
    }
    for (int i = 0; i < count; i++) save(summed + i * dim + x, low[i]), save(summed + i * dim + x + LANES, high[i]);
  }
}

/* `count` queries of one head over one unit. */
static inline __attribute__((always_inline)) void attend_unit(const int count, const struct unit *unit,
                                                               const struct unit *next, ptrdiff_t dim,
                                                               const float *queries, float *summed, float *maxima,
                                                               float *sums) {
  float weights[QUERIES][TOKENS];
  score_unit(count, unit, next, dim, queries, weights);
  for (int i = 0; i < count; i++) weigh(unit->tokens, weights[i], maxima + i, sums + i, summed + i * dim, dim);
  add_unit(count, unit, next, dim, weights, summed);
}

static ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* The u-th unit of a thread: tokens [low, high) of the far ones, all heads of some tokens in turn, since those lie side
   by side; then units from `first` on of the near ones, head by head. Past the last: no token. */
static void find(const struct attention *a, struct unit *unit, ptrdiff_t u, ptrdiff_t low, ptrdiff_t high,
                 ptrdiff_t first, ptrdiff_t last) {
  ptrdiff_t far_units = (high - low + TOKENS - 1) / TOKENS * a->kv_heads;
  ptrdiff_t pieces = (a->num_near + TOKENS - 1) / TOKENS;
  unit->tokens = 0;
  if (u < far_units) {
    ptrdiff_t begin = low + u / a->kv_heads * TOKENS;
    unit->near = 0, unit->head = u % a->kv_heads, unit->tokens = least(TOKENS, high - begin);
    for (ptrdiff_t t = 0; t < unit->tokens; t++) {
      unit->keys[t] = a->store + (2 * a->far[begin + t] * a->kv_heads + unit->head) * a->dim;
      unit->values[t] = unit->keys[t] + a->kv_heads * a->dim;
    }
  } else if (first + u - far_units < last) {
    ptrdiff_t piece = first + u - far_units, begin = piece % pieces * TOKENS;
    unit->near = 1, unit->head = piece / pieces, unit->tokens = least(TOKENS, a->num_near - begin);
    for (ptrdiff_t t = 0; t < unit->tokens; t++) {
      unit->keys[t] = a->keys + unit->head * a->key_head + (begin + t) * a->key_row;
      unit->values[t] = a->values + unit->head * a->value_head + (begin + t) * a->value_row;
    }
  }
}

/* The part of thread `p`: its sums, maxima and sums of weights of every head into its state. */
static void attend_part(const struct attention *a, ptrdiff_t p) {
  ptrdiff_t heads = a->kv_heads * a->group, dim = a->dim, group = a->group;
  float *summed = a->states + p * heads * (dim + 2), *maxima = summed + heads * dim, *sums = maxima + heads;
  memset(summed, 0, sizeof(float) * heads * (dim + 2));
  for (ptrdiff_t h = 0; h < heads; h++) maxima[h] = -INFINITY;
  ptrdiff_t low = a->num_far * p / a->threads, high = a->num_far * (p + 1) / a->threads;
  ptrdiff_t near_units = (a->num_near + TOKENS - 1) / TOKENS * a->kv_heads;
  ptrdiff_t first = near_units * p / a->threads, last = near_units * (p + 1) / a->threads;
  struct unit units[2];
  find(a, &units[0], 0, low, high, first, last);
  for (ptrdiff_t u = 0; units[u & 1].tokens; u++) {
    struct unit *unit = &units[u & 1], *next = &units[(u + 1) & 1];
    find(a, next, u + 1, low, high, first, last);
    for (ptrdiff_t t = next->tokens; t < TOKENS; t++) /* nothing to fetch: what is here already */
      next->keys[t] = unit->keys[0], next->values[t] = unit->values[0];
    for (ptrdiff_t g = 0; g < group; g += QUERIES) {
      ptrdiff_t h = unit->head * group + g, left = group - g;
      const float *queries = a->arranged + (unit->near * heads + h) * dim;
#define ATTEND(COUNT) attend_unit(COUNT, unit, next, dim, queries, summed + h * dim, maxima + h, sums + h)
      if (left >= 4) ATTEND(4);
      else if (left == 3) ATTEND(3);
      else if (left == 2) ATTEND(2);
      else ATTEND(1);
    }
  }
}

/* Attention of one token over far and near tokens, at least one, under one softmax. Returns 1, and reads nothing, if a
   far token is none of the store's. */
int attend(const struct attention *a) {
  for (ptrdiff_t t = 0; t < a->num_far; t++)
    if (a->far[t] < 0 || a->far[t] >= a->capacity) return 1;
  ptrdiff_t heads = a->kv_heads * a->group, dim = a->dim, state = heads * (dim + 2);
  for (ptrdiff_t h = 0; h < 2 * heads; h++)
    for (ptrdiff_t x = 0; x < dim; x++) a->arranged[h * dim + place(x)] = a->queries[h * dim + x];
#pragma omp parallel for schedule(static, 1) num_threads(a->threads)
  for (ptrdiff_t p = 0; p < a->threads; p++) attend_part(a, p);
  for (ptrdiff_t h = 0; h < heads; h++) {
    float top = -INFINITY, sum = 0;
    for (ptrdiff_t p = 0; p < a->threads; p++) {
      float maximum = a->states[p * state + heads * dim + h];
      top = maximum > top ? maximum : top;
    }
    for (ptrdiff_t p = 0; p < a->threads; p++) {
      float *of = a->states + p * state, factor = expf(of[heads * dim + h] - top);
      sum += factor * of[heads * (dim + 1) + h];
      of[heads * dim + h] = factor;
    }
    for (ptrdiff_t x = 0; x < dim; x++) {
      float value = 0;
      for (ptrdiff_t p = 0; p < a->threads; p++) {
        const float *of = a->states + p * state;
        value += of[heads * dim + h] * of[h * dim + place(x)];
      }
      a->out[h * dim + x] = value / sum;
    }
  }
  return 0;
}

#endif
