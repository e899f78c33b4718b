#include "optimizers.hpp"

#include <stdexcept>

namespace dolmen {
namespace {

constexpr std::size_t kCorrectionCountMax = 1U << 15;

// Settings are taken out one by one; what is left was not known.
class Settings {
 public:
  Settings(const std::string& optimizer, std::map<std::string, double> values)
      : optimizer_(optimizer), values_(std::move(values)) {}

  float take(const char* name) {
    const auto found = values_.find(name);
    if (found == values_.end()) {
      throw std::invalid_argument("optimizer " + optimizer_ + " needs the setting " + name);
    }
    const auto value = static_cast<float>(found->second);
    values_.erase(found);
    return value;
  }
  float take_or(const char* name, float otherwise) { return values_.contains(name) ? take(name) : otherwise; }
  void require_empty() const {
    if (values_.empty()) return;
    throw std::invalid_argument("optimizer " + optimizer_ + " has no setting " + values_.begin()->first);
  }

 private:
  const std::string& optimizer_;
  std::map<std::string, double> values_;
};

// Braces evaluate their parts from left to right, so each brace list below reads like the struct that it fills.
template <typename AnyAdam>
AnyAdam make_adam(Settings& settings) {
  return AnyAdam({settings.take("learning_rate"), settings.take("beta1"), settings.take("beta2"),
                  settings.take("epsilon"), settings.take("weight_decay"), settings.take("decoupled") != 0.0F});
}

Optimizer make(const std::string& name, Settings& settings) {
  const auto take = [&](const char* setting) { return settings.take(setting); };
  if (name == "sgd") return Sgd{take("learning_rate"), take("weight_decay")};
  if (name == "adagrad") {
    return AdaGrad{take("learning_rate"), take("initial_accumulator"), take("epsilon"), take("weight_decay")};
  }
  if (name == "rowwise_adagrad") {
    return RowwiseAdaGrad{take("learning_rate"), take("initial_accumulator"), take("epsilon"), take("weight_decay")};
  }
  if (name == "momentum") return Momentum{take("learning_rate"), take("momentum"), take("weight_decay")};
  if (name == "rmsprop") return RmsProp{take("learning_rate"), take("decay"), take("epsilon"), take("weight_decay")};
  if (name == "adadelta") return AdaDelta{take("learning_rate"), take("decay"), take("epsilon"), take("weight_decay")};
  if (name == "ftrl") return Ftrl{take("learning_rate"), take("beta"), take("l1"), take("l2")};
  if (name == "group_ftrl") {
    return GroupFtrl{take("learning_rate"), take("beta"), take("l1"), take("l21"), take("l2")};
  }
  if (name == "adam") return make_adam<Adam>(settings);
  if (name == "lazy_adam") return make_adam<LazyAdam>(settings);
  if (name == "rowwise_adam") return make_adam<RowwiseAdam>(settings);
  if (name == "amsgrad") return make_adam<AmsGrad>(settings);
  throw std::invalid_argument("unknown optimizer " + name);
}

}  // namespace

template <AdamKind kind>
AdamOf<kind>::AdamOf(const Settings& settings) : settings_(settings), beta1_(settings.beta1), beta2_(settings.beta2) {
  for (std::uint64_t t = 0; t < kCorrectionCountMax && !is_settled_; ++t) {
    corrections_.push_back(late_correction(t));
    is_settled_ = corrections_.back().first == 1.0F && corrections_.back().second == 1.0F;
  }
}

template <AdamKind kind>
typename AdamOf<kind>::Correction AdamOf<kind>::late_correction(std::uint64_t t) const noexcept {
  if (is_settled_) return {1.0F, 1.0F};
  const auto power = static_cast<double>(t);
  return {static_cast<float>(1.0 - std::pow(beta1_, power)), static_cast<float>(1.0 - std::pow(beta2_, power))};
}

template class AdamOf<AdamKind::kPlain>;
template class AdamOf<AdamKind::kLazy>;
template class AdamOf<AdamKind::kRowwise>;
template class AdamOf<AdamKind::kMaximum>;

float gradient_sum_max(const Optimizer& optimizer, const Clip& clip) noexcept {
  const float rate = std::visit(
      [](const auto& one) {
        if constexpr (requires { one.learning_rate(); }) {
          return one.learning_rate();
        } else {
          return one.learning_rate;
        }
      },
      optimizer);
  // A rate has two factors, a slot's and a call's, each at most a hundred, and Adam may divide its mean by no more than
  // epsilon, which is 1e-12 at least: 1e37 is the largest step.
  const float most = 0x1p70F / std::max(rate, 1.0F);
  return std::min(clip.value_max, clip.norm_max) <= most ? std::numeric_limits<float>::max() : most;
}

std::pair<Optimizer, Clip> make_optimizer(const std::string& name, std::map<std::string, double> settings) {
  Settings left(name, std::move(settings));
  Optimizer optimizer = make(name, left);
  const Clip clip{left.take_or("gradient_value_max", Clip::kNone), left.take_or("gradient_norm_max", Clip::kNone)};
  left.require_empty();
  return {std::move(optimizer), clip};
}

}  // namespace dolmen
