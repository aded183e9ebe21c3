/* Vectors of as many floats as a register holds, for frame.c and sound.c. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
enum { N = 16 };
#else
enum { N = 8 };
#endif
#define INLINE static inline __attribute__((always_inline))
typedef float Vector __attribute__((vector_size(4 * N), aligned(4)));
typedef int32_t Integers __attribute__((vector_size(4 * N), aligned(4)));

INLINE Vector load(const float *p) { return *(const Vector *)p; }
INLINE void store(float *p, Vector v) { *(Vector *)p = v; }

INLINE float total(Vector v) {
    float x[N];
    memcpy(x, &v, sizeof x);
    for (int width = N / 2; width; width /= 2)
        for (int i = 0; i < width; i++) x[i] += x[i + width];
    return x[0];
}

/* e^x to two units in the last place, x cut to [-87, 88] (Cephes' polynomial). */
INLINE Vector exponential(Vector x) {
    const Vector low = (Vector){0} - 87.f, high = (Vector){0} + 88.f;
    Integers below = x < low, above = x > high;
    x = (Vector)(((Integers)x & ~below & ~above) | ((Integers)low & below) | ((Integers)high & above));
    Vector shifted = x * 1.44269504f + 12582912.f, n = shifted - 12582912.f; /* rounds */
    Vector r = x - n * .693359375f + n * 2.12194440e-4f, p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    return (Vector)((Integers)p + ((Integers)shifted << 23)); /* times 2^n */
}
