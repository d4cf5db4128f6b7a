#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace fastconv {
namespace {

#if defined(__x86_64__)
struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

// Which register files the operating system saves on a context switch (XCR0).
std::uint64_t saved_state() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

#if FASTCONV_HAVE_AMX && !defined(FASTCONV_EMULATE_AMX)
// Tile registers are 8 KiB of state a thread, which Linux saves only for processes that have asked (arch_prctl(2)).
bool tiles_granted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// The level above avx512, where a processor and an operating system with that level have it.
IsaMask detect_tiles([[maybe_unused]] const Cpuid& extended, [[maybe_unused]] std::uint64_t state) {
#if defined(FASTCONV_EMULATE_AMX)
  return isa_bit(Isa::amx);
#elif FASTCONV_HAVE_AMX
  const bool bf16 = extended.edx >> 22 & 1, tile = extended.edx >> 24 & 1;
  const bool saved = (state >> 17 & 3) == 3;  // the tiles' configuration and their data
  return bf16 && tile && saved && tiles_granted() ? isa_bit(Isa::amx) : 0;
#else
  return 0;
#endif
}

IsaMask detect() {
  IsaMask mask = isa_bit(Isa::baseline);
  const Cpuid basic(1, 0), extended(7, 0);
  const bool osxsave = basic.ecx >> 27 & 1;
  if (!osxsave) return mask;
  const std::uint64_t state = saved_state();
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6;
  const bool fma = basic.ecx >> 12 & 1, avx = basic.ecx >> 28 & 1, f16c = basic.ecx >> 29 & 1;
  const bool avx2 = extended.ebx >> 5 & 1, bmi2 = extended.ebx >> 8 & 1;
  if (!(ymm && fma && avx && f16c && avx2 && bmi2)) return mask;
  mask |= isa_bit(Isa::avx2);
#if defined(FASTCONV_EMULATE_AVX512)
  (void)zmm;
  return mask | isa_bit(Isa::avx512) | detect_tiles(extended, state);
#else
  const bool avx512f = extended.ebx >> 16 & 1, dq = extended.ebx >> 17 & 1;
  const bool bw = extended.ebx >> 30 & 1, vl = extended.ebx >> 31 & 1;
  if (!(zmm && avx512f && dq && bw && vl)) return mask;
  return mask | isa_bit(Isa::avx512) | detect_tiles(extended, state);
#endif
}
#else
IsaMask detect() { return isa_bit(Isa::baseline); }
#endif

IsaMask available_mask() {
  static const IsaMask mask = detect();
  return mask;
}

Isa parse(const std::string& name, const char* argument) {
  std::string known;
  for (Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
    known += std::string(known.empty() ? "" : ", ") + "'" + isa_name(isa) + "'";
  }
  fail(std::string(argument) + ": '" + name + "' is not available here; expected one of " + known);
}

Isa initial_isa() {
  if (const char* name = std::getenv("FASTCONV_ISA"); name && *name) return parse(name, "FASTCONV_ISA");
  return available_isas().back();
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{initial_isa()};
  return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
  static const char* const names[kIsaCount] = {"baseline", "avx2", "avx512", "amx"};
  return names[static_cast<int>(isa)];
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (int i = 0; i < kIsaCount; ++i)
    if (available_mask() >> i & 1) isas.push_back(static_cast<Isa>(i));
  return isas;
}

Isa active_isa() { return current().load(std::memory_order_relaxed); }
IsaMask active_isa_mask() { return available_mask() & isa_up_to(active_isa()); }
void set_active_isa(const std::string& name) { current().store(parse(name, "isa"), std::memory_order_relaxed); }

}  // namespace fastconv
