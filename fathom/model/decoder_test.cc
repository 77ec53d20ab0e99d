// The whole model on a tiny V3 and a tiny V3.2: what must be equal however the work is cut up. Agreement with the truth is
// eval/golden_test's.
#include "fathom/model/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "fathom/base/threads.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/testing/close.h"

namespace fathom {
namespace {

// Three layers, groups of experts.
ModelConfig GroupedConfig(bool sparse) {
  ModelConfig c = TinyConfig(sparse ? ModelFamily::kV32 : ModelFamily::kV3, 61);
  c.num_hidden_layers = 3;
  c.n_routed_experts = 6;
  c.n_group = 3;
  c.topk_group = 2;
  c.routed_scaling_factor = 2.5;
  return c;
}

std::vector<int32_t> RandomIds(int64_t n, uint64_t seed) {
  const CounterRng rng(seed, HashName("ids"));
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(rng.Below(i, 61));
  return ids;
}

// Documents of these lengths on one token axis.
struct Documents {
  std::vector<int32_t> ids, targets, positions;
  std::vector<float> weights;
  std::vector<Segment> segments;

  void Add(std::span<const int32_t> tokens) {
    const auto begin = static_cast<int64_t>(ids.size()), n = static_cast<int64_t>(tokens.size()) - 1;
    ids.insert(ids.end(), tokens.begin(), tokens.end() - 1);
    targets.insert(targets.end(), tokens.begin() + 1, tokens.end());
    positions.resize(ids.size());
    std::iota(positions.end() - n, positions.end(), 0);
    weights.resize(ids.size(), 1.0f);
    segments.push_back({begin, begin + n, begin, begin + n});
  }
  void AddPadding(int64_t n) {
    ids.resize(ids.size() + static_cast<size_t>(n), 0);
    targets.resize(ids.size(), 0);
    positions.resize(ids.size(), 0);
    weights.resize(ids.size(), 0.0f);
  }
  TokenBatch batch() const { return {ids, targets, weights, {positions, segments}}; }
};

std::span<const float> Floats(const Tensor& t) { return {t.data<float>(), static_cast<size_t>(t.NumElements())}; }

class TinyDecoder {
 protected:
  explicit TinyDecoder(bool sparse)
      : config_(GroupedConfig(sparse)),
        params_(InitParams(config_, 7, DType::kF32, false)),
        decoder_(config_),
        saved_(1 << 26),
        scratch_(1 << 28) {
    decoder_.EnsurePositions(512);
  }
  Ctx Context(DType compute = DType::kF32) { return {saved_, scratch_, compute}; }

  double Loss(const Documents& d) {
    Ctx ctx = Context();
    return decoder_.Loss(ctx, params_, d.batch(), {}, {}).main.loss;
  }
  // All gradients, one after the other.
  std::vector<float> Gradients(const Documents& d, Remat remat, DType compute = DType::kF32) {
    DecoderParams grads = GradientsOf(d, remat, compute, [](const ParamSpec& p) { return !LearnsByCounting(p.role); });
    std::vector<float> all;
    for (const NamedWeight& w : ListParams(grads)) all.insert(all.end(), Floats(w.weight->value).begin(), Floats(w.weight->value).end());
    return all;
  }
  DecoderParams GradientsOf(const Documents& d, Remat remat, DType compute, ParamFilter wanted) {
    DecoderParams grads = MakeGradients(params_, wanted);
    Ctx ctx = Context(compute);
    LossOptions options;
    options.indexer = {config_.has_indexer() ? 0.3f : 0.0f, true, false};
    decoder_.ForwardBackward(ctx, params_, d.batch(), options, remat, grads);
    return grads;
  }
  Tensor Logits(std::span<const int32_t> ids) {
    Ctx ctx = Context();
    ArenaScope scope(scratch_);
    Documents d;
    std::vector<int32_t> padded(ids.begin(), ids.end());
    padded.push_back(0);
    d.Add(padded);
    const View h = scratch_.Alloc(DType::kF32, {static_cast<int64_t>(ids.size()), config_.hidden_size});
    decoder_.Forward(ctx, params_, ids, d.batch().layout, h);
    Tensor logits(DType::kF32, {h.dim(0), config_.vocab_size});
    decoder_.head().StreamLogits(ctx, {params_.norm, params_.lm_head}, h, logits.mutable_view());
    return logits;
  }

  ModelConfig config_;
  DecoderParams params_;
  Decoder decoder_;
  Arena saved_, scratch_;
};

// The parameter: with an indexer (V3.2)?
class DecoderTest : public testing::TestWithParam<bool>, protected TinyDecoder {
 protected:
  DecoderTest() : TinyDecoder(GetParam()) {}
};
class SparseDecoderTest : public testing::Test, protected TinyDecoder {
 protected:
  SparseDecoderTest() : TinyDecoder(true) {}
};

TEST_P(DecoderTest, PackedDocumentsGiveTheLossOfSeparateOnes) {
  Documents packed;
  double separate = 0;
  for (const int64_t n : {5, 1, 33, 2, 17}) {
    const auto tokens = RandomIds(n + 1, static_cast<uint64_t>(n));
    packed.Add(tokens);
    Documents alone;
    alone.Add(tokens);
    separate += Loss(alone);
  }
  packed.AddPadding(6);
  EXPECT_NEAR(Loss(packed), separate, 1e-5 * separate);
}

TEST_P(DecoderTest, TheOrderOfDocumentsDoesNotMatter) {
  const auto a = RandomIds(20, 1), b = RandomIds(31, 2);
  Documents ab, ba;
  ab.Add(a);
  ab.Add(b);
  ba.Add(b);
  ba.Add(a);
  EXPECT_NEAR(Loss(ab), Loss(ba), 1e-5 * Loss(ab));
  EXPECT_TRUE(RelativeL2(Gradients(ab, Remat::kNone), ToDoubles(Gradients(ba, Remat::kNone)), 1e-5));
}

TEST_P(DecoderTest, RematChangesMemoryNotGradients) {
  Documents d;
  d.Add(RandomIds(40, 3));
  d.Add(RandomIds(9, 4));
  d.AddPadding(3);
  const auto none = Gradients(d, Remat::kNone);
  EXPECT_TRUE(SameBits(none, Gradients(d, Remat::kMinimal)));
  EXPECT_TRUE(SameBits(none, Gradients(d, Remat::kFull)));
  const auto bf16 = Gradients(d, Remat::kNone, DType::kBF16);
  EXPECT_TRUE(SameBits(bf16, Gradients(d, Remat::kMinimal, DType::kBF16)));
  EXPECT_TRUE(SameBits(bf16, Gradients(d, Remat::kFull, DType::kBF16)));
}

TEST_P(DecoderTest, SameBitsForAnyNumberOfThreads) {
  Documents d;
  d.Add(RandomIds(70, 6));
  d.Add(RandomIds(50, 7));
  SetThreads(1);
  const auto one = Gradients(d, Remat::kMinimal);
  for (const int threads : {2, 3, 4}) {
    SetThreads(threads);
    EXPECT_TRUE(SameBits(one, Gradients(d, Remat::kMinimal))) << threads << " threads";
  }
  SetThreads(0);
}

// The next tokens of some sequences of one pool: logits [M,V] after each, by rows' own arithmetic or the fastest.
struct Rows {
  CachedSequence* sequence;
  std::span<const int32_t> ids;
};
std::vector<float> Pass(const Decoder& decoder, Ctx ctx, const DecoderParams& params, CachePool& pool, const std::vector<Rows>& parts) {
  std::vector<int32_t> ids;
  std::vector<CachedSegment> segments;
  for (const Rows& part : parts) {
    const int64_t begin = std::ssize(ids), past = part.sequence->length(), end = past + std::ssize(part.ids);
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    part.sequence->Own(past, end);
    part.sequence->SetLength(end);
    segments.push_back({begin, std::ssize(ids), past, part.sequence->blocks()});
  }
  Tensor h(DType::kF32, {std::ssize(ids), decoder.config().hidden_size}),
      logits(DType::kF32, {std::ssize(ids), decoder.config().vocab_size});
  decoder.Decode(ctx, params, ids, segments, pool, h.mutable_view());
  decoder.Logits(ctx, params, h, logits.mutable_view());
  const auto values = Floats(logits);
  return {values.begin(), values.end()};
}

TEST_P(DecoderTest, PrefillInAnyPiecesAndDecodeGiveTheSameLogits) {
  const auto ids = RandomIds(150, 8);
  const Tensor whole = Logits(ids);
  CachePool pool(config_, config_.num_hidden_layers, 3, DType::kF32);
  std::vector<float> alone;
  for (const int64_t piece : {1, 3, 8, 9, 17, 65, 150}) {
    for (const Arithmetic arithmetic : {Arithmetic::kByRow, Arithmetic::kFastest}) {
      CachedSequence sequence(pool);
      Ctx ctx = Context();
      ctx.arithmetic = arithmetic;
      std::vector<float> logits;
      for (int64_t begin = 0; begin < 150; begin += piece) {
        const auto n = static_cast<size_t>(std::min(piece, 150 - begin));
        const auto values = Pass(decoder_, ctx, params_, pool, {{&sequence, std::span(ids).subspan(static_cast<size_t>(begin), n)}});
        logits.insert(logits.end(), values.begin(), values.end());
      }
      EXPECT_TRUE(Close(logits, ToDoubles(Floats(whole)), 1e-4, 0)) << "pieces of " << piece;
      if (alone.empty()) alone = logits;
      if (arithmetic == Arithmetic::kByRow) {
        EXPECT_TRUE(SameBits(logits, alone)) << "pieces of " << piece;
      }
    }
  }
}

TEST_P(DecoderTest, SequencesShareAPassAndKeepTheirBits) {
  const auto a = RandomIds(90, 8), b = RandomIds(70, 9), c = RandomIds(40, 10);
  CachePool pool(config_, config_.num_hidden_layers, 8, DType::kF32);
  Ctx ctx = Context();
  ctx.arithmetic = Arithmetic::kByRow;
  const auto alone = [&](const std::vector<int32_t>& ids) {
    CachedSequence sequence(pool);
    return Pass(decoder_, ctx, params_, pool, {{&sequence, ids}});
  };
  const auto rows_of = [&](const std::vector<float>& all, size_t begin, size_t count) {
    const auto v = static_cast<size_t>(config_.vocab_size);
    return std::vector<float>(all.begin() + static_cast<int64_t>(begin * v), all.begin() + static_cast<int64_t>((begin + count) * v));
  };
  const auto want_a = alone(a), want_b = alone(b), want_c = alone(c);
  CachedSequence x(pool), y(pool), z(pool);
  const auto first = Pass(decoder_, ctx, params_, pool, {{&x, std::span(a).first(63)}, {&y, std::span(b).first(1)}});
  EXPECT_TRUE(SameBits(rows_of(first, 0, 63), rows_of(want_a, 0, 63)));
  EXPECT_TRUE(SameBits(rows_of(first, 63, 1), rows_of(want_b, 0, 1)));
  const auto second = Pass(decoder_, ctx, params_, pool, {{&y, std::span(b).subspan(1)}, {&z, c}, {&x, std::span(a).subspan(63)}});
  EXPECT_TRUE(SameBits(rows_of(second, 0, 69), rows_of(want_b, 1, 69)));
  EXPECT_TRUE(SameBits(rows_of(second, 69, 40), want_c));
  EXPECT_TRUE(SameBits(rows_of(second, 109, 27), rows_of(want_a, 63, 27)));
}

TEST_P(DecoderTest, AForkAndItsOriginGoTheirOwnWays) {
  const auto ids = RandomIds(80, 8), other = RandomIds(20, 9);
  CachePool pool(config_, config_.num_hidden_layers, 8, DType::kF32);
  Ctx ctx = Context();
  ctx.arithmetic = Arithmetic::kByRow;
  const auto pass = [&](CachedSequence& s, std::span<const int32_t> next) { return Pass(decoder_, ctx, params_, pool, {{&s, next}}); };
  const auto prefix = std::span(ids).first(70), rest = std::span(ids).subspan(70);
  CachedSequence origin(pool), straight(pool), straight_other(pool);
  for (CachedSequence* s : {&origin, &straight, &straight_other}) pass(*s, prefix);
  CachedSequence fork = origin.Fork(70);
  EXPECT_TRUE(SameBits(pass(origin, other), pass(straight_other, other)));
  EXPECT_TRUE(SameBits(pass(fork, rest), pass(straight, rest)));
}

TEST_P(DecoderTest, RollingTheCacheBackForgets) {
  const auto ids = RandomIds(12, 9), other = RandomIds(5, 10);
  Ctx ctx = Context();
  CachePool pool(config_, config_.num_hidden_layers, 2, DType::kF32);
  CachedSequence straight(pool), rolled(pool);
  Pass(decoder_, ctx, params_, pool, {{&straight, std::span(ids).first(11)}});
  Pass(decoder_, ctx, params_, pool, {{&rolled, std::span(ids).first(11)}});
  Pass(decoder_, ctx, params_, pool, {{&rolled, other}});
  rolled.SetLength(11);
  const auto last = [&](CachedSequence& s) { return Pass(decoder_, ctx, params_, pool, {{&s, std::span(ids).subspan(11)}}); };
  EXPECT_TRUE(SameBits(last(straight), last(rolled)));
}

TEST_F(SparseDecoderTest, ChoosingEverythingIsDense) {
  const auto ids = RandomIds(30, 12);
  const auto logits_with = [&](int64_t index_topk) {
    config_.index_topk = index_topk;
    decoder_ = Decoder(config_);
    decoder_.EnsurePositions(30);
    return Logits(ids);
  };
  const Tensor sparse = logits_with(6), nearly = logits_with(29), all = logits_with(30), dense = logits_with(0);
  EXPECT_TRUE(SameBits(Floats(all), Floats(dense)));
  EXPECT_FALSE(SameBits(Floats(nearly), Floats(dense)));
  EXPECT_FALSE(SameBits(Floats(sparse), Floats(dense)));
}

// Whatever else is frozen, a parameter's gradient is that of training everything, and a frozen one gets no memory.
TEST_P(DecoderTest, AFrozenParameterChangesNoOtherGradient) {
  Documents d;
  d.Add(RandomIds(20, 11));
  d.Add(RandomIds(7, 13));
  const auto learns = [](const ParamSpec& p) { return !LearnsByCounting(p.role); };
  DecoderParams all = GradientsOf(d, Remat::kMinimal, DType::kF32, learns);
  for (const NamedWeight& w : ListParams(all)) {
    const float* g = w.weight->value.data<float>();
    const bool routed = w.spec->name.find(".experts.") != std::string::npos;  // an expert may have had no token
    EXPECT_TRUE(routed || std::any_of(g, g + w.weight->value.NumElements(), [](float x) { return x != 0; })) << w.spec->name;
  }
  for (int part = 0; part < 3; ++part) {
    const auto wanted = [&](const ParamSpec& p) { return learns(p) && HashName(p.name) % 3 == static_cast<uint64_t>(part); };
    DecoderParams some = GradientsOf(d, Remat::kMinimal, DType::kF32, wanted);
    for (const NamedWeight& w : ListParams(all)) {
      const Tensor& got = some[*w.spec].value;
      EXPECT_EQ(got.empty(), !wanted(*w.spec)) << w.spec->name;
      EXPECT_TRUE(got.empty() || SameBits(Floats(got), Floats(w.weight->value))) << w.spec->name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DecoderTest, testing::Bool(), [](const auto& test) { return test.param ? "V32" : "V3"; });

}  // namespace
}  // namespace fathom
