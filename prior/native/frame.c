/* One frame of the prior: backbone, depth head and sampling of a few rows in one call.
 *
 * The same mathematics as Prior.step and draw_frame, in float32. A weight is read once for all
 * rows; one that half precision holds exactly is stored so and widened in the register. Every
 * output is one sum in the order of the inputs, so that a row does not depend on the rows beside
 * it. No function allocates, keeps anything between calls, or trusts an index that it is given.
 *
 * Letters as everywhere: D width, H heads, K codebooks, V codebook size, L text tokens; R rows,
 * with guidance two for every piece. prior/native/structures.py mirrors the structures.
 */
#include <stdlib.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif
#include "vectors.h"

#if defined(__AVX512F__)
enum { TILE = 4 * N, MANY_ROWS_VECTORS = 4 };
#else
enum { TILE = 4 * N, MANY_ROWS_VECTORS = 2 }; /* what sixteen registers hold */
#endif
#define MASKED (-1e30f)
INLINE int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

/* (outputs, inputs) weights as tiles of TILE outputs: (outputs / TILE, inputs, TILE), zero-padded. */
typedef struct { const void *weights; int32_t outputs, inputs, is_half; } Matrix;
typedef struct {
    const float *attention_gain, *head_gain, *text_gain, *feed_forward_gain;
    Matrix qkv, out, text_query, text_out, gate_up, down;
} Block;
typedef struct {
    int32_t width, heads, layers, books, size, depth_width, depth_heads, depth_layers;
    const float *embedding, *gain, *depth_gain;
    const float *const *depth_embeddings;
    const Block *blocks, *depth_blocks;
    const Matrix *heads_of_books;
    Matrix depth_frame;
} Model;
/* Keys (R, H, D / H, slots) are stored by coordinate, values (R, H, slots, D / H) by slot. */
typedef struct { float *keys, *values; const float *text_keys, *text_values; } Layer;
typedef struct { float temperature, guidance, top_p; int32_t top_k; } Settings;
typedef struct {
    int32_t pieces, rows, slots, slot_stride, tokens, token_stride;
    const Layer *layers;
    const Settings *sampling; /* of every book */
    const uint8_t *text_mask; /* (R, L) */
    float *workspace;
} State;
typedef struct {
    int32_t slot, seen, may_end, added_stride;
    const float *cosines, *sines; /* of this position, (D / H) */
    const float *added;           /* (R, D) */
    const float *uniform;         /* (pieces, K * V + 1) */
    const int64_t *last;          /* (pieces, K) */
    int64_t *codes;               /* (pieces, K), written */
    uint8_t *ended;               /* (pieces), read and written */
} Frame;

/* -- vectors ------------------------------------------------------------------------------ */

INLINE Vector load_weights(const char *p, int is_half) {
    if (!is_half) return load((const float *)p);
#if defined(__AVX512F__)
    return (Vector)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__) /* gcc 12 converts vectors of _Float16 one by one */
    return (Vector)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    typedef _Float16 Halves __attribute__((vector_size(2 * N), aligned(2)));
    return __builtin_convertvector(*(const Halves *)p, Vector);
#endif
}

/* -- layers ------------------------------------------------------------------------------- */

/* One tile of R rows and C vectors of outputs, from vector `first` of the tile on. */
INLINE void multiply_tile(const Matrix *m, const char *w, const float *x, int x_stride, float *y,
                          int y_stride, const int R, const int C, const int is_half) {
    const int bytes = is_half ? 2 : 4;
    Vector sum[4][4] = {{{0}}};
    for (int i = 0; i < m->inputs; i++, w += TILE * bytes) {
        if (C == 4) __builtin_prefetch(w + 16 * TILE * bytes);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            Vector weights = load_weights(w + c * N * bytes, is_half);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sum[r][c] += weights * x[r * x_stride + i];
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) store(y + r * y_stride + c * N, sum[r][c]);
}

INLINE void multiply_as(const Matrix *m, const float *x, int x_stride, float *y, int y_stride,
                        int rows, const int is_half) {
    const int bytes = is_half ? 2 : 4, C = MANY_ROWS_VECTORS;
    const char *w = m->weights;
    for (int j = 0; j < m->outputs; j += TILE, w += (size_t)TILE * m->inputs * bytes) {
        int r = 0;
        for (; r + 4 <= rows; r += 4)
            for (int c = 0; c < 4; c += C)
                multiply_tile(m, w + c * N * bytes, x + r * x_stride, x_stride,
                              y + r * y_stride + j + c * N, y_stride, 4, C, is_half);
        for (; r + 2 <= rows; r += 2)
            multiply_tile(m, w, x + r * x_stride, x_stride, y + r * y_stride + j, y_stride, 2, 4, is_half);
        if (r < rows)
            multiply_tile(m, w, x + r * x_stride, x_stride, y + r * y_stride + j, y_stride, 1, 4, is_half);
    }
}

/* (rows, inputs) -> (rows, outputs), each row of y with room for whole tiles. */
static void multiply(const Matrix *m, const float *x, int x_stride, float *y, int y_stride, int rows) {
    if (m->is_half) multiply_as(m, x, x_stride, y, y_stride, rows, 1);
    else multiply_as(m, x, x_stride, y, y_stride, rows, 0);
}

static void add(float *x, const float *y, int n) {
    for (int i = 0; i < n; i++) x[i] += y[i];
}

static void normalize(const float *x, const float *gain, float *y, int n) {
    Vector squares = {0};
    int i = 0;
    for (; i + N <= n; i += N) squares += load(x + i) * load(x + i);
    float sum = total(squares);
    for (; i < n; i++) sum += x[i] * x[i];
    float scale = sqrtf((float)n) / fmaxf(sqrtf(sum), 1.17549435e-38f);
    for (i = 0; i < n; i++) y[i] = x[i] * gain[i] * scale;
}

static void rotate(const float *x, const float *cosines, const float *sines, float *y, int n) {
    int half = n / 2;
    for (int i = 0; i < half; i++) {
        y[i] = x[i] * cosines[i] + x[i + half] * sines[i];
        y[i + half] = x[i + half] * cosines[i + half] + x[i] * sines[i + half];
    }
}

/* C vectors of the weighted sum of the values. */
INLINE void weigh(const float *weights, const float *values, int d, int seen, float scale, float *y,
                  const int C) {
    Vector sum[64 / N] = {{0}};
    for (int j = 0; j < seen; j++)
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) sum[c] += weights[j] * load(values + (size_t)j * d + c * N);
    for (int c = 0; c < C; c++) store(y + c * N, sum[c] * scale);
}

/* One head's query (d) over the slots seen; `stride` slots lie between two coordinates of keys. */
static void attend(const float *query, const float *keys, const float *values, int stride, int d,
                   int seen, const uint8_t *mask, float *scores, float *y) {
    const float scale = 1.f / sqrtf((float)d);
    const int padded = round_up(seen, N);
    int i = 0;
    memset(scores, 0, sizeof(float) * padded);
    for (; i + 4 <= d; i += 4) {
        const float *k = keys + (size_t)i * stride, *l = k + stride, *m = l + stride, *n = m + stride;
        float a = query[i] * scale, b = query[i + 1] * scale;
        float c = query[i + 2] * scale, e = query[i + 3] * scale;
        for (int j = 0; j < padded; j += N)
            store(scores + j, load(scores + j) + a * load(k + j) + b * load(l + j) + c * load(m + j) + e * load(n + j));
    }
    for (; i < d; i++)
        for (int j = 0; j < padded; j++) scores[j] += query[i] * scale * keys[(size_t)i * stride + j];
    for (int j = seen; j < padded; j++) scores[j] = MASKED;
    float highest = MASKED, sum = 0;
    for (int j = 0; j < seen; j++) {
        if (mask && !mask[j]) scores[j] = MASKED;
        highest = scores[j] > highest ? scores[j] : highest;
    }
    Vector sums = {0};
    for (int j = 0; j < padded; j += N) {
        Vector weights = exponential(load(scores + j) - highest);
        store(scores + j, weights);
        sums += weights;
    }
    sum = 1.f / total(sums);
    i = 0;
    for (; i + 64 <= d; i += 64) weigh(scores, values + i, d, seen, sum, y + i, 64 / N);
    for (; i + N <= d; i += N) weigh(scores, values + i, d, seen, sum, y + i, 1);
    for (; i < d; i++) {
        y[i] = 0;
        for (int j = 0; j < seen; j++) y[i] += scores[j] * sum * values[(size_t)j * d + i];
    }
}

/* -- a frame ------------------------------------------------------------------------------ */

typedef struct {
    int D, W, wide; /* strides: of the width, the depth head's width, the widest rows */
    float *x, *h, *y, *z, *wide_rows, *depth, *scores, *keys, *values, *logits, *kept, *head;
} Workspace;

static size_t lay_out(const Model *m, const State *s, Workspace *w) {
    const Block *blocks[2] = {m->blocks, m->depth_blocks};
    int rows = 2 * s->rows, longest = round_up(m->books, 16);
    w->D = round_up(m->width, 64), w->W = round_up(m->depth_width, 64);
    w->wide = round_up(m->size + 1, 64);
    for (int i = 0; i < 2; i++)
        if (blocks[i]) {
            int a = round_up(blocks[i]->qkv.outputs, 64), b = round_up(blocks[i]->gate_up.outputs, 64);
            w->wide = a > w->wide ? a : w->wide;
            w->wide = b > w->wide ? b : w->wide;
        }
    if (s->slot_stride > longest) longest = s->slot_stride;
    if (s->token_stride > longest) longest = s->token_stride;
    size_t narrow = (size_t)rows * (w->D > w->W ? w->D : w->W), top = 0;
    size_t cache = (size_t)m->depth_layers * s->rows * m->depth_width * round_up(m->books, 16);
    struct { float **at; size_t floats; } parts[] = {
        {&w->x, narrow}, {&w->h, narrow}, {&w->y, narrow}, {&w->z, narrow}, {&w->depth, narrow},
        {&w->wide_rows, (size_t)rows * w->wide}, {&w->scores, longest}, {&w->keys, cache},
        {&w->values, cache}, {&w->logits, w->wide}, {&w->kept, w->wide}, {&w->head, w->D + (w->D > w->W ? w->D : w->W)},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].at = s->workspace ? s->workspace + top : 0;
        top += (parts[i].floats + 31) / 16 * 16;
    }
    return top;
}

static void feed_forward(const Block *b, float *x, int stride, int n, int rows, Workspace *w) {
    int inner = b->down.inputs;
    for (int r = 0; r < rows; r++) normalize(x + r * stride, b->feed_forward_gain, w->h + r * stride, n);
    multiply(&b->gate_up, w->h, stride, w->wide_rows, w->wide, rows);
    for (int r = 0; r < rows; r++) {
        float *gate = w->wide_rows + r * w->wide, *up = gate + inner;
        int i = 0;
        for (; i + N <= inner; i += N)
            store(gate + i, load(gate + i) / (1.f + exponential(-load(gate + i))) * load(up + i));
        for (; i < inner; i++) gate[i] = gate[i] / (1.f + expf(-gate[i])) * up[i];
    }
    multiply(&b->down, w->wide_rows, w->wide, w->y, stride, rows);
    for (int r = 0; r < rows; r++) add(x + r * stride, w->y + r * stride, n);
}

static void backbone(const Model *m, const State *s, const Frame *f, Workspace *w) {
    int D = m->width, H = m->heads, d = D / H, R = s->rows, stride = w->D;
    for (int l = 0; l < m->layers; l++) {
        const Block *b = m->blocks + l;
        const Layer *layer = s->layers + l;
        for (int r = 0; r < R; r++) normalize(w->x + r * stride, b->attention_gain, w->h + r * stride, D);
        multiply(&b->qkv, w->h, stride, w->wide_rows, w->wide, R);
        for (int r = 0; r < R; r++)
            for (int h = 0; h < H; h++) {
                const float *query = w->wide_rows + r * w->wide + h * d;
                float *keys = layer->keys + (size_t)(r * H + h) * d * s->slot_stride;
                float *values = layer->values + (size_t)(r * H + h) * d * s->slots;
                normalize(query + D, b->head_gain, w->head, d);
                rotate(w->head, f->cosines, f->sines, w->head + stride, d);
                for (int i = 0; i < d; i++) keys[(size_t)i * s->slot_stride + f->slot] = w->head[stride + i];
                memcpy(values + (size_t)f->slot * d, query + 2 * D, sizeof(float) * d);
                normalize(query, b->head_gain, w->head, d);
                rotate(w->head, f->cosines, f->sines, w->head + stride, d);
                attend(w->head + stride, keys, values, s->slot_stride, d, f->seen, 0, w->scores,
                       w->h + r * stride + h * d);
            }
        multiply(&b->out, w->h, stride, w->y, stride, R);
        for (int r = 0; r < R; r++) {
            add(w->x + r * stride, w->y + r * stride, D);
            normalize(w->x + r * stride, b->text_gain, w->h + r * stride, D);
        }
        multiply(&b->text_query, w->h, stride, w->z, stride, R);
        for (int r = 0; r < R; r++) {
            const uint8_t *mask = s->text_mask + (size_t)r * s->tokens;
            int tokens = s->tokens; /* without the masked ones at the end */
            while (tokens > 1 && !mask[tokens - 1]) tokens--;
            for (int h = 0; h < H; h++)
                attend(w->z + r * stride + h * d, layer->text_keys + (size_t)(r * H + h) * d * s->token_stride,
                       layer->text_values + (size_t)(r * H + h) * d * s->tokens, s->token_stride, d,
                       tokens, mask, w->scores, w->h + r * stride + h * d);
        }
        multiply(&b->text_out, w->h, stride, w->y, stride, R);
        for (int r = 0; r < R; r++) add(w->x + r * stride, w->y + r * stride, D);
        feed_forward(b, w->x, stride, D, R, w);
    }
}

/* T positions of the depth head from position `first` on, (T, R, W) in w->depth. */
static void depth(const Model *m, const State *s, int first, int T, Workspace *w) {
    int W = m->depth_width, H = m->depth_heads, d = W / H, R = s->rows, stride = w->W;
    int slots = round_up(m->books, 16), rows = T * R;
    float *x = w->depth;
    for (int l = 0; l < m->depth_layers; l++) {
        const Block *b = m->depth_blocks + l;
        for (int r = 0; r < rows; r++) normalize(x + r * stride, b->attention_gain, w->h + r * stride, W);
        multiply(&b->qkv, w->h, stride, w->wide_rows, w->wide, rows);
        for (int r = 0; r < rows; r++)
            for (int h = 0; h < H; h++) {
                int slot = first + r / R;
                size_t at = (((size_t)l * R + r % R) * H + h) * d * slots;
                const float *query = w->wide_rows + r * w->wide + h * d;
                normalize(query + W, b->head_gain, w->head, d);
                for (int i = 0; i < d; i++) w->keys[at + (size_t)i * slots + slot] = w->head[i];
                memcpy(w->values + at + (size_t)slot * d, query + 2 * W, sizeof(float) * d);
                normalize(query, b->head_gain, w->head, d);
                attend(w->head, w->keys + at, w->values + at, slots, d, slot + 1, 0, w->scores,
                       w->h + r * stride + h * d);
            }
        if (l == m->depth_layers - 1 && T > 1) { /* the last position alone goes on */
            memmove(w->h, w->h + (rows - R) * stride, sizeof(float) * R * stride);
            memmove(x, x + (rows - R) * stride, sizeof(float) * R * stride);
            rows = R;
        }
        multiply(&b->out, w->h, stride, w->y, stride, rows);
        for (int r = 0; r < rows; r++) add(x + r * stride, w->y + r * stride, W);
        feed_forward(b, x, stride, W, rows, w);
    }
    for (int r = 0; r < R; r++) normalize(x + r * stride, m->depth_gain, w->h + r * stride, W);
}

/* -- sampling (prior/sampling.py) ---------------------------------------------------------- */

static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The k-th largest of n, which are reordered (Hoare's quickselect). */
static float select_largest(float *x, int n, int k) {
    int low = 0, high = n - 1;
    while (low < high) {
        float pivot = x[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (i < high && x[i] > pivot) i++;
            while (j > low && x[j] < pivot) j--;
            if (i > j) break;
            float swapped = x[i];
            x[i++] = x[j], x[j--] = swapped;
        }
        if (k - 1 <= j) high = j;
        else if (k - 1 >= i) low = i;
        else break;
    }
    return x[k - 1];
}

/* The least logit that top-k and top-p keep. */
static float lowest_kept(const Settings *s, const float *logits, int n, float *kept) {
    float lowest = -INFINITY, sum = 0, before = 0;
    int count = 0;
    memcpy(kept, logits, sizeof(float) * n);
    if (s->top_k > 0 && s->top_k < n) lowest = select_largest(kept, n, s->top_k);
    if (s->top_p >= 1.f) return lowest;
    for (int i = 0; i < n; i++)
        if (logits[i] >= lowest) kept[count++] = logits[i];
    qsort(kept, count, sizeof(float), descending);
    for (int i = 0; i < count; i++) sum += expf(kept[i] - kept[0]);
    for (int i = 0; i < count; i++) {
        if (i && before >= s->top_p) return kept[i - 1];
        before += expf(kept[i] - kept[0]) / sum;
    }
    return lowest;
}

static int choose(const Settings *s, const float *logits, const float *away, const float *uniform,
                  int n, Workspace *w) {
    float *l = w->logits, lowest = -INFINITY, best = -INFINITY, g = s->guidance;
    int code = 0;
    for (int i = 0; i < n; i++) l[i] = logits[i];
    if (away) /* torch.lerp */
        for (int i = 0; i < n; i++)
            l[i] = g < .5f ? away[i] + g * (l[i] - away[i]) : l[i] - (l[i] - away[i]) * (1.f - g);
    if (s->temperature > 0) {
        for (int i = 0; i < n; i++) l[i] /= s->temperature;
        if ((s->top_k > 0 && s->top_k < n) || s->top_p < 1.f) lowest = lowest_kept(s, l, n, w->kept);
    }
    for (int i = 0; i < n; i++) {
        if (l[i] < lowest) continue;
        float value = l[i];
        if (s->temperature > 0) value -= logf(-logf(fmaxf(uniform[i], 1.17549435e-38f)));
        if (value > best) best = value, code = i;
    }
    return code;
}

/* Choose a book's codes from hidden rows; codes of ended pieces are 0. */
static void choose_book(const Model *m, const State *s, const Frame *f, int book, int stride, Workspace *w) {
    const int K = m->books, V = m->size, noises = K * V + 1;
    multiply(m->heads_of_books + book, w->h, stride, w->wide_rows, w->wide, s->rows);
    for (int p = 0; p < s->pieces; p++) {
        const float *logits = w->wide_rows + p * w->wide;
        const float *away = s->rows > s->pieces ? logits + s->pieces * w->wide : 0;
        const float *uniform = f->uniform + (size_t)p * noises + (book ? 1 + book * V : 0);
        int code = choose(s->sampling + book, logits, away, uniform, V + (!book && f->may_end), w);
        if (code == V) f->ended[p] = 1;
        f->codes[p * K + book] = f->ended[p] ? 0 : code;
    }
}

/* -- what the library offers --------------------------------------------------------------- */

int32_t partita_tile(void) { return TILE; }
uint64_t partita_source(void) { return PARTITA_SOURCE; } /* a digest of this file, see build.py */

/* Of n numbers of four bytes, in their order. */
uint64_t partita_checksum(const uint32_t *p, int64_t n) {
    uint32_t sums[64] = {0}; /* as many as hide how long a product takes */
    uint64_t sum = 0;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (int j = 0; j < 64; j++) sums[j] = sums[j] * 16777619u + p[i + j];
    for (; i < n; i++) sum = sum * 1099511628211u + p[i];
    for (int j = 0; j < 64; j++) sum = sum * 1099511628211u + sums[j];
    return sum;
}

int64_t partita_workspace(const Model *m, const State *s) {
    Workspace w;
    return (int64_t)lay_out(m, s, &w);
}

/* Read the frame before and draw one; 1 where an index lies outside of what it points into. */
int32_t partita_frame(const Model *m, const State *s, const Frame *f) {
    const int D = m->width, K = m->books, V = m->size, R = s->rows;
    if (f->slot < 0 || f->slot >= s->slots || f->seen < 1 || f->seen > s->slots) return 1;
    for (int i = 0; i < s->pieces * K; i++)
        if (f->last[i] < 0 || f->last[i] >= V) return 1;
    Workspace w;
    lay_out(m, s, &w);
    for (int r = 0; r < R; r++) {
        float *x = w.x + r * w.D;
        memcpy(x, f->added + (size_t)r * f->added_stride, sizeof(float) * D);
        for (int k = 0; k < K; k++)
            add(x, m->embedding + (size_t)(k * V + f->last[r % s->pieces * K + k]) * D, D);
    }
    backbone(m, s, f, &w);
    for (int r = 0; r < R; r++) normalize(w.x + r * w.D, m->gain, w.h + r * w.D, D);
    choose_book(m, s, f, 0, w.D, &w);
    if (K == 1) return 0;
    multiply(&m->depth_frame, w.h, w.D, w.depth, w.W, R);
    for (int k = 1; k < K; k++) {
        float *x = w.depth + (k == 1 ? R * w.W : 0);
        for (int r = 0; r < R; r++)
            memcpy(x + r * w.W, m->depth_embeddings[k - 1] + (size_t)f->codes[r % s->pieces * K + k - 1] * m->depth_width,
                   sizeof(float) * m->depth_width);
        depth(m, s, k == 1 ? 0 : k, k == 1 ? 2 : 1, &w);
        choose_book(m, s, f, k, w.W, &w);
    }
    return 0;
}
