/* Layers of Transformers and their gradients, row by row, in one pass through memory each. */
#include "vectors.h"

/* The sum of a product, element by element. */
static float dot(const float *x, const float *y, int64_t n) {
    Vector sums = {0};
    int64_t i = 0;
    for (; i + N <= n; i += N) sums += load(x + i) * load(y + i);
    float sum = total(sums);
    for (; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* (rows, n) -> (rows, n): RMS normalization (arXiv 1910.07467), and what each row was scaled by. */
void partita_rms_norm(const float *restrict x, const float *restrict gain, float *restrict y,
                      float *restrict scales, int64_t rows, int64_t n, float epsilon) {
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        const float scale = scales[r] = 1.f / sqrtf(dot(x, x, n) / n + epsilon);
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * gain[i];
    }
}

/* Its gradient by x (rows, n) and, added to what is there, by the gain (n). */
void partita_rms_norm_gradient(const float *restrict x, const float *restrict gain,
                               const float *restrict scales, const float *restrict dy,
                               float *restrict dx, double *restrict dgain, int64_t rows,
                               int64_t n) {
    for (int64_t r = 0; r < rows; r++, x += n, dy += n, dx += n) {
        const float scale = scales[r];
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * gain[i];
        const float along = dot(dx, x, n) / n * scale * scale;
        for (int64_t i = 0; i < n; i++) dx[i] = (dx[i] - x[i] * along) * scale;
        for (int64_t i = 0; i < n; i++) dgain[i] += dy[i] * (x[i] * scale);
    }
}

INLINE float sigmoid_of_one(float x) { return 1.f / (1.f + expf(-x)); }
INLINE Vector sigmoid(Vector x) { return 1.f / (1.f + exponential(-x)); }

/* (rows, 2 n) gates and what they let through -> (rows, n), SiLU of the one times the other. */
void partita_swiglu(const float *restrict x, float *restrict y, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++, x += 2 * n, y += n) {
        int64_t i = 0;
        for (; i + N <= n; i += N) store(y + i, load(x + i) * sigmoid(load(x + i)) * load(x + n + i));
        for (; i < n; i++) y[i] = x[i] * sigmoid_of_one(x[i]) * x[n + i];
    }
}

/* Its gradient by x (rows, 2 n). */
void partita_swiglu_gradient(const float *restrict x, const float *restrict dy, float *restrict dx,
                             int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++, x += 2 * n, dx += 2 * n, dy += n) {
        int64_t i = 0;
        for (; i + N <= n; i += N) {
            Vector gate = load(x + i), open = sigmoid(gate), d = load(dy + i);
            store(dx + i, d * load(x + n + i) * open * (1.f + gate * (1.f - open)));
            store(dx + n + i, d * gate * open);
        }
        for (; i < n; i++) {
            float gate = x[i], open = sigmoid_of_one(gate);
            dx[i] = dy[i] * x[n + i] * open * (1.f + gate * (1.f - open));
            dx[n + i] = dy[i] * gate * open;
        }
    }
}
