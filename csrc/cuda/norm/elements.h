// How the elements of a set are numbered, so that neighbouring threads read neighbouring memory.
#pragma once

#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/norm/norm.h"

namespace fastconv {
namespace cuda {

struct SetWalk {
  Walk walk;  // over one group's channels
  Index groups, group_channels, elements;
  bool per_sample;

  FASTCONV_DEVICE Position at(Index set, Index element) const {
    Position p = walk.at(element);
    p.c += set % groups * group_channels;
    if (per_sample) p.n = set / groups;
    return p;
  }
  // The set of an element.
  FASTCONV_DEVICE Index of(const Position& p) const {
    const Index group = p.c / group_channels;
    return per_sample ? p.n * groups + group : group;
  }
};

inline SetWalk set_walk(const ArrayView& x, Sets sets) {
  SetWalk result{walk_of(x), sets.groups, sets.groups ? x.shape[1] / sets.groups : 0, 0, sets.per_sample};
  result.walk.channels = result.group_channels;
  const Index count = sets.count(x);
  result.elements = count ? x.size() / count : 0;
  return result;
}

// x - mean with the mean's rounding error put back: the mean may be much larger than the deviations.
template <class T>
FASTCONV_DEVICE T deviation(T x, double mean) {
  const T high = static_cast<T>(mean);
  return (x - high) - static_cast<T>(mean - static_cast<double>(high));
}

template <class S>
FASTCONV_DEVICE Compute<S> channel_value(const S* values, Index c, Compute<S> fallback) {
  return values ? dev::load(values + c) : fallback;
}

}  // namespace cuda
}  // namespace fastconv
