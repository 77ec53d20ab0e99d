#include "fathom/kernels/elementwise/embedding.h"

#include "fathom/kernels/elementwise/embedding_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

const std::vector<int32_t> kIds = {4, 0, 6, 4, 4, 1, 6};
constexpr int64_t kVocabulary = 7, kTokens = 7;

template <class T>
void CheckForward(int64_t d, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << d << " gap " << gap << " shift " << shift);
  PaddedMatrix<T> table(kVocabulary, d, gap, shift, RandomVector(kVocabulary * d, 1));
  PaddedMatrix<float> out(kTokens, d, gap, 1);
  EmbeddingForward(table.view(), kIds, out.view());
  EXPECT_TRUE(Close(out.Floats(), EmbeddingForwardRef(table.Values(), d, kIds), 0, 0));
  EXPECT_TRUE(out.PaddingUntouched());
}

void CheckBackward(int64_t d, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << d << " gap " << gap << " shift " << shift);
  PaddedMatrix<float> dout(kTokens, d, gap, shift, RandomVector(kTokens * d, 2)),
      dtable(kVocabulary, d, gap, 1, RandomVector(kVocabulary * d, 3));
  std::vector<double> want = dtable.Values();
  EmbeddingBackwardRef(dout.Values(), d, kIds, want);
  EmbeddingBackward(dout.view(), kIds, dtable.view());
  EXPECT_TRUE(Close(dtable.Floats(), want, 1e-6, 1e-6));
  EXPECT_TRUE(dtable.PaddingUntouched());
}

TEST(Embedding, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t d : kRowSizes) {
      CheckForward<float>(d, 0, 0);
      CheckForward<BF16>(d, 3, 1);
      CheckForward<F16>(d, 1, 3);
      CheckBackward(d, 0, 0);
      CheckBackward(d, 5, 1);
    }
  });
}

// <forward(table), dout> = <table, backward(dout)>: the backward is the transpose.
TEST(Embedding, BackwardIsTheTranspose) {
  const int64_t d = 5;
  const auto table = RandomVector(kVocabulary * d, 1), dout = RandomVector(kTokens * d, 2);
  std::vector<double> dtable(table.size());
  EmbeddingBackwardRef(dout, d, kIds, dtable);
  const auto f = [&](const std::vector<std::complex<double>>& z) { return EmbeddingForwardRef(z, d, kIds); };
  EXPECT_TRUE(RelativeL2(dtable, ComplexStepGradient(f, table, dout), 1e-12));
}

TEST(Embedding, BitsDoNotDependOnThreads) {
  const int64_t d = 520, tokens = 64;
  std::vector<int32_t> ids;
  for (int32_t t = 0; t < tokens; ++t) ids.push_back(t % 3);
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> dout(tokens, d, 0, 0, RandomVector(tokens * d, 2)), dtable(3, d, 0, 0, RandomVector(3 * d, 3));
    EmbeddingBackward(dout.view(), ids, dtable.view());
    return dtable.Floats();
  });
}

}  // namespace
}  // namespace fathom
