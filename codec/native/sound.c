/* Inner loops of the vocoder (codec/phase.py, codec/stereo.py, codec/spectrogram.py) and of the
 * flow decoder's blocks (decoder/diffusion_decoder.py), row by row.
 *
 * The same mathematics as PyTorch's operators there, without a pass through memory for each of
 * them. Complex numbers are pairs of floats. F frames, N bins. No function allocates or keeps
 * anything between calls.
 */
#include "vectors.h"

/* sin(2 pi x) for |x| <= 1/4, to 1e-7: Taylor's polynomial. */
static inline float sine(float x) {
    float y = x * 6.28318531f, s = y * y;
    return y * (1.f + s * (-1.66666667e-1f + s * (8.33333333e-3f + s * (-1.98412698e-4f
           + s * (2.75573192e-6f + s * -2.50521084e-8f)))));
}

static inline float fraction(float cycles) { /* in [-1/2, 1/2] */
    return cycles - ((cycles + 12582912.f) - 12582912.f);
}

/* How far a parabola's top lies from a peak's bin, in bins. */
static inline float offset(const float *level) {
    float bend = level[-1] - 2 * level[0] + level[1];
    float top = .5f * (level[-1] - level[1]) / (bend < -1e-6f ? bend : -1e-6f);
    return top < -.5f ? -.5f : top > .5f ? .5f : top;
}

/* One row's frames: carry_phases, scatter_floor and the cosine and sine of what they return.
 *
 * levels (F + 2, bins): logarithms of the frame before, the frames, and the last once more;
 * draws (2 bins): uniform in [0, 1), twice; cycles (bins): phases of the frame before, overwritten;
 * floors (F): magnitudes below which phases are drawn; across, total (bins): room;
 * out (F, bins) complex.
 */
void partita_phases(const float *restrict levels, const float *restrict magnitude,
                    const float *restrict draws, float *restrict cycles,
                    const float *restrict floors, float *restrict across, float *restrict total,
                    float *restrict out, int32_t F, int32_t bins, int32_t first_place,
                    int32_t stride, float turn_of_bin, float slope_of_growth) {
    for (int f = 0; f < F; f++, levels += bins, magnitude += bins, out += 2 * bins) {
        const float *level = levels + bins, *after = levels + 2 * bins, floor = floors[f];
        double sum = 0;
        for (int k = 0; k < bins; k++) total[k] = (after[k] - levels[k]) * slope_of_growth;
        across[0] = 0;
        for (int k = 1; k < bins; k++) { /* half a cycle a bin: the window's center */
            sum += .5f * (total[k] + total[k - 1]) + .5f;
            across[k] = (float)sum;
        }
        for (int k = 0; k < bins; k++) across[k] = fraction(across[k]);

        int last = 0, filled = 0; /* the peak before, and the first bin that has none yet */
        float sum_of_last = cycles[0];
        for (int k = 1; k < bins; k++) {
            if (k < bins - 1 && !(level[k] >= level[k - 1] && level[k] > level[k + 1])) continue;
            float turn = turn_of_bin * (k + (k < bins - 1 ? offset(level + k) : 0.f));
            for (int middle = (last + k + 1) / 2; filled < middle;) total[filled++] = sum_of_last;
            sum_of_last = fraction(turn) - across[k] + cycles[k];
            last = k;
        }
        while (filled < bins) total[filled++] = sum_of_last;

        const float *drawn = draws + (first_place + (int64_t)stride * f) % bins;
        for (int k = 0; k < bins; k++) cycles[k] = fraction(across[k] + total[k]);
        for (int k = 0; k < bins; k++)
            total[k] = magnitude[k] < floor ? fraction(drawn[k]) : cycles[k];
        for (int k = 0; k < bins; k++) {
            float a = fabsf(total[k]);
            out[2 * k] = sine(.25f - a);
            out[2 * k + 1] = copysignf(sine(.25f - fabsf(a - .25f)), total[k]);
        }
    }
}

/* Add R rows of windowed frames, (F, width) each, into (length) samples that are zero before. */
void partita_fold(const float *restrict frames, const float *restrict window, float *restrict samples, int64_t R, int64_t F,
                  int64_t width, int64_t hop) {
    const int64_t length = (F - 1) * hop + width;
    for (int64_t r = 0; r < R; r++, samples += length)
        for (int64_t f = 0; f < F; f++, frames += width)
            for (int64_t i = 0; i < width; i++) samples[f * hop + i] += frames[i] * window[i];
}

/* n complex numbers of modulus one. */
void partita_normalize(const float *restrict x, float *restrict y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float scale = 1.f / sqrtf(x[2 * i] * x[2 * i] + x[2 * i + 1] * x[2 * i + 1] + 1e-16f);
        y[2 * i] = x[2 * i] * scale;
        y[2 * i + 1] = x[2 * i + 1] * scale;
    }
}

/* n complex numbers times n real ones. */
void partita_scale(const float *restrict x, const float *restrict factor, float *restrict y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[2 * i] = x[2 * i] * factor[i];
        y[2 * i + 1] = x[2 * i + 1] * factor[i];
    }
}

/* Middle and side of F frames of (bins) complex numbers: out (2, F, bins) complex.
 *
 * factors (3, F, bands): of the middle, of the side, and of the decorrelated copy in the side, whose
 * bins are the frame's times response (bins) complex; starts (bands + 1): the first bin that lies at
 * or above a band's center; blends (bins): the share of the band above in a bin between two.
 */
void partita_mix(const float *restrict mono, const float *restrict factors, const float *restrict blends,
                 const float *restrict response, const int32_t *restrict starts, float *restrict out, int64_t F,
                 int32_t bands, int32_t bins) {
    const int64_t size = 2 * F * bins;
    for (int64_t f = 0; f < F; f++, mono += 2 * bins, out += 2 * bins, factors += bands)
        for (int i = 0; i < bands; i++) {
            const float *middle = factors + i, *side = middle + F * bands, *wet = side + F * bands;
            const int above = i + 1 < bands;
            const float m = middle[0], s = side[0], w = wet[0];
            const float dm = middle[above] - m, ds = side[above] - s, dw = wet[above] - w;
            for (int k = i ? starts[i] : 0; k < starts[i + 1]; k++) {
                const float t = blends[k], x = mono[2 * k], y = mono[2 * k + 1];
                const float copy = w + dw * t, across = copy * response[2 * k + 1];
                const float along = s + ds * t + copy * response[2 * k], level = m + dm * t;
                out[2 * k] = level * x;
                out[2 * k + 1] = level * y;
                out[size + 2 * k] = along * x - across * y;
                out[size + 2 * k + 1] = along * y + across * x;
            }
        }
}

/* Queries and keys of (B, T, 3 H d) projections: normalized, rotated, (2, B, H, T, d). */
void partita_heads(const float *restrict qkv, const float *restrict query_gain, const float *restrict key_gain,
                   const float *restrict cosines, const float *restrict sines, float *restrict out, int32_t B, int32_t T,
                   int32_t H, int32_t d, float epsilon) {
    const int half = d / 2;
    for (int which = 0; which < 2; which++)
        for (int b = 0; b < B; b++)
            for (int h = 0; h < H; h++)
                for (int t = 0; t < T; t++, out += d) {
                    const float *x = qkv + (((int64_t)b * T + t) * 3 + which) * H * d + h * d;
                    const float *gain = which ? key_gain : query_gain;
                    const float *c = cosines + (int64_t)t * half, *s = sines + (int64_t)t * half;
                    Vector squares = {0};
                    int i = 0;
                    for (; i + N <= d; i += N) squares += load(x + i) * load(x + i);
                    float sum = total(squares);
                    for (; i < d; i++) sum += x[i] * x[i];
                    const float scale = 1.f / sqrtf(sum / d + epsilon);
                    for (i = 0; i + N <= half; i += N) {
                        Vector first = load(x + i) * load(gain + i) * scale;
                        Vector second = load(x + i + half) * load(gain + i + half) * scale;
                        store(out + i, first * load(c + i) - second * load(s + i));
                        store(out + i + half, first * load(s + i) + second * load(c + i));
                    }
                    for (; i < half; i++) {
                        float first = x[i] * gain[i] * scale;
                        float second = x[i + half] * gain[i + half] * scale;
                        out[i] = first * c[i] - second * s[i];
                        out[i + half] = first * s[i] + second * c[i];
                    }
                }
}
