// Instruction sets: what this build has, what this machine can run, and which one is in use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastconv {

// Best last. A kernel row names the level it needs; a level implies those before it.
enum class Isa : std::uint8_t { baseline, avx2, avx512, amx };
constexpr int kIsaCount = 4;

// One bit per level, so that kernel choice is a pure function of a mask and can be tested for any machine.
using IsaMask = std::uint32_t;
constexpr IsaMask isa_bit(Isa isa) { return IsaMask{1} << static_cast<int>(isa); }
constexpr IsaMask isa_up_to(Isa isa) { return (IsaMask{2} << static_cast<int>(isa)) - 1; }

const char* isa_name(Isa isa);
std::vector<Isa> available_isas();  // compiled in, and supported by the processor and the operating system
IsaMask active_isa_mask();          // every available level up to the one in use
Isa active_isa();
void set_active_isa(const std::string& name);  // refuses unknown and unavailable names

}  // namespace fastconv
