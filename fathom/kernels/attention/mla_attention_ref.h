// The reference of mla_attention: three loops, right for double and std::complex<double> (branches on real parts only).
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "fathom/kernels/attention/mla_attention.h"

namespace fathom::ref {

inline double RealPart(double x) { return x; }
inline double RealPart(const std::complex<double>& x) { return x.real(); }
inline double RealPart(float x) { return x; }

template <class T>
struct MlaInputs {
  std::vector<T> q, kv, k_rope;  // as in mla_attention.h
};

template <class T>
T MlaScore(const MlaShape& s, const MlaInputs<T>& in, int64_t query, int64_t key, int64_t head) {
  const int64_t width = s.nope_dim + s.rope_dim;
  const T* q = in.q.data() + (query * s.heads + head) * width;
  const T* k = in.kv.data() + (key * s.heads + head) * (s.nope_dim + s.v_dim);
  T sum = T(0);
  for (int64_t i = 0; i < s.nope_dim; ++i) sum += q[i] * k[i];
  for (int64_t i = 0; i < s.rope_dim; ++i) sum += q[s.nope_dim + i] * in.k_rope[static_cast<size_t>(key * s.rope_dim + i)];
  return sum * T(s.scale);
}

// Softmax over the keys of one row; returns the log of the sum.
template <class T>
T Softmax(std::vector<T>& row) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const T& x : row) largest = std::max(largest, RealPart(x));
  T sum = T(0);
  for (T& x : row) sum += x = std::exp(x - T(largest));
  for (T& x : row) x /= sum;
  return std::log(sum) + T(largest);
}

// Probabilities of one row over the listed keys.
template <class T>
std::vector<T> MlaProbabilities(const MlaShape& s, const MlaInputs<T>& in, int64_t query, std::span<const int32_t> keys, int64_t head,
                                T* lse = nullptr) {
  std::vector<T> row;
  for (const int32_t key : keys) row.push_back(MlaScore(s, in, query, key, head));
  const T log_sum = Softmax(row);
  if (lse != nullptr) *lse = log_sum;
  return row;
}

// The keys that each query of the segments sees, one list per query of the batch; empty outside segments.
inline std::vector<std::vector<int32_t>> VisibleKeys(std::span<const Segment> segments, int64_t tokens) {
  std::vector<std::vector<int32_t>> keys(static_cast<size_t>(tokens));
  for (const Segment& g : segments) {
    for (int64_t t = g.q_begin; t < g.q_end; ++t) {
      for (int64_t j = g.k_begin; j <= g.k_end - (g.q_end - t); ++j) keys[static_cast<size_t>(t)].push_back(static_cast<int32_t>(j));
    }
  }
  return keys;
}

// The largest score of each row and head [T,H]; -infinity where nothing is seen.
inline std::vector<double> MlaLargestScores(const MlaShape& s, const std::vector<std::vector<int32_t>>& keys, const MlaInputs<double>& in) {
  std::vector<double> top(keys.size() * static_cast<size_t>(s.heads), -std::numeric_limits<double>::infinity());
  for (int64_t row = 0; row < std::ssize(top); ++row) {
    for (const int32_t key : keys[static_cast<size_t>(row / s.heads)])
      top[static_cast<size_t>(row)] = std::max(top[static_cast<size_t>(row)], MlaScore(s, in, row / s.heads, key, row % s.heads));
  }
  return top;
}

template <class T>
struct MlaOutputs {
  std::vector<T> o, lse;  // zeros for queries without keys
};

template <class T>
MlaOutputs<T> MlaForward(const MlaShape& s, const std::vector<std::vector<int32_t>>& keys, const MlaInputs<T>& in) {
  MlaOutputs<T> out{std::vector<T>(keys.size() * static_cast<size_t>(s.heads * s.v_dim)),
                    std::vector<T>(keys.size() * static_cast<size_t>(s.heads))};
  for (size_t t = 0; t < keys.size(); ++t) {
    for (int64_t head = 0; head < s.heads && !keys[t].empty(); ++head) {
      const int64_t row = static_cast<int64_t>(t) * s.heads + head;
      const std::vector<T> p = MlaProbabilities(s, in, static_cast<int64_t>(t), keys[t], head, &out.lse[static_cast<size_t>(row)]);
      for (size_t j = 0; j < p.size(); ++j) {
        const T* v = in.kv.data() + (keys[t][j] * s.heads + head) * (s.nope_dim + s.v_dim) + s.nope_dim;
        for (int64_t i = 0; i < s.v_dim; ++i) out.o[static_cast<size_t>(row * s.v_dim + i)] += p[j] * v[i];
      }
    }
  }
  return out;
}

// dV_j += p_j dO; dS_j = p_j (dO V_j - sum_l p_l dO V_l); dQ += scale dS_j K_j; dK_j += scale dS_j Q.
template <class T>
MlaInputs<T> MlaBackward(const MlaShape& s, const std::vector<std::vector<int32_t>>& keys, const MlaInputs<T>& in,
                         const std::vector<T>& d_o) {
  MlaInputs<T> d{std::vector<T>(in.q.size()), std::vector<T>(in.kv.size()), std::vector<T>(in.k_rope.size())};
  const int64_t width = s.nope_dim + s.rope_dim, kv_width = s.nope_dim + s.v_dim;
  for (size_t t = 0; t < keys.size(); ++t) {
    for (int64_t head = 0; head < s.heads && !keys[t].empty(); ++head) {
      const int64_t row = static_cast<int64_t>(t) * s.heads + head;
      const std::vector<T> p = MlaProbabilities(s, in, static_cast<int64_t>(t), keys[t], head);
      const T* grad = d_o.data() + row * s.v_dim;
      std::vector<T> dp(p.size());
      T mean = T(0);
      for (size_t j = 0; j < p.size(); ++j) {
        const int64_t at = (keys[t][j] * s.heads + head) * kv_width + s.nope_dim;
        for (int64_t i = 0; i < s.v_dim; ++i) {
          dp[j] += grad[i] * in.kv[static_cast<size_t>(at + i)];
          d.kv[static_cast<size_t>(at + i)] += p[j] * grad[i];
        }
        mean += p[j] * dp[j];
      }
      for (size_t j = 0; j < p.size(); ++j) {
        const T ds = p[j] * (dp[j] - mean) * T(s.scale);
        for (int64_t i = 0; i < width; ++i) {
          const bool rope = i >= s.nope_dim;
          const size_t at =
              static_cast<size_t>(rope ? keys[t][j] * s.rope_dim + i - s.nope_dim : (keys[t][j] * s.heads + head) * kv_width + i);
          const size_t q_at = static_cast<size_t>(row * width + i);
          d.q[q_at] += ds * (rope ? in.k_rope : in.kv)[at];
          (rope ? d.k_rope : d.kv)[at] += ds * in.q[q_at];
        }
      }
    }
  }
  return d;
}

}  // namespace fathom::ref
