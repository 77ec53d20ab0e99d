// Ranks that are threads of one process; for tests.
#pragma once

#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/parallel/comm.h"

namespace fathom {

class ThreadTransport final : public Transport {
 public:
  struct Mail {
    explicit Mail(int ranks) : size(ranks) {}
    int size;
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::tuple<Channel, int, int>, std::deque<std::vector<std::byte>>> boxes;  // by channel, sender and receiver
    std::map<std::pair<int, int>, std::vector<std::byte>> news;                         // by sender and receiver
  };
  ThreadTransport(std::shared_ptr<Mail> mail, int rank) : mail_(std::move(mail)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return mail_->size; }
  void Exchange(Channel channel, std::span<const Outgoing> out, std::span<const Incoming> in) override {
    std::unique_lock lock(mail_->mutex);
    for (const Outgoing& m : out) mail_->boxes[{channel, rank_, m.to}].emplace_back(m.bytes.begin(), m.bytes.end());
    mail_->changed.notify_all();
    for (const Incoming& m : in) {
      auto& box = mail_->boxes[{channel, m.from, rank_}];
      mail_->changed.wait(lock, [&] { return !box.empty(); });
      FATHOM_CHECK(box.front().size() == m.bytes.size(), "{} bytes sent, {} expected", box.front().size(), m.bytes.size());
      if (!m.bytes.empty()) std::memcpy(m.bytes.data(), box.front().data(), m.bytes.size());
      box.pop_front();
    }
  }
  bool Meet(double) override { return true; }
  void Tell(int to, std::span<const std::byte> news) override {
    const std::scoped_lock lock(mail_->mutex);
    mail_->news[{rank_, to}].assign(news.begin(), news.end());
  }
  bool Hear(int from, std::span<std::byte> news) override {
    const std::scoped_lock lock(mail_->mutex);
    const auto heard = mail_->news.extract({from, rank_});
    if (!heard.empty()) std::ranges::copy(heard.mapped(), news.begin());
    return !heard.empty();
  }
  [[noreturn]] void Abort(int) override { std::abort(); }

 private:
  std::shared_ptr<Mail> mail_;
  int rank_;
};

// f(world) on so many threads, each with one thread to compute with; the first exception is thrown here.
inline void RunRanks(int ranks, const std::function<void(const Comm&)>& f) {
  const auto mail = std::make_shared<ThreadTransport::Mail>(ranks);
  std::vector<std::exception_ptr> failures(static_cast<size_t>(ranks));
  {
    std::vector<std::jthread> threads;
    for (int r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        omp_set_num_threads(1);
        try {
          f(Comm(std::make_shared<ThreadTransport>(mail, r)));
        } catch (...) {
          failures[static_cast<size_t>(r)] = std::current_exception();
        }
      });
    }
  }
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace fathom
