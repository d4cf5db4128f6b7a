# One row per instruction set: its name and the compiler flags of its kernel files. A kernel file is
# csrc/cpu/<op>/<name>.cpp; an op may leave an instruction set out and is then served by the next lower one.
# Link-time optimisation stays off: it would let the linker move code across these flag boundaries.
include(CheckCXXSourceCompiles)

set(FASTCONV_COMMON_FLAGS -Wall -Wextra -Wshadow -ffp-contract=off -fno-math-errno)
# What every kernel file gets on top. Trapping and errno would only block vectorisation; NaN, infinity and signed
# zero keep their meaning, so -ffast-math is out.
set(FASTCONV_KERNEL_FLAGS -O3 -fno-trapping-math -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables)
if(FASTCONV_SANITIZE)
  # With a check at every access -O3 takes the compiler minutes a file.
  list(REMOVE_ITEM FASTCONV_KERNEL_FLAGS -O3)
  list(APPEND FASTCONV_KERNEL_FLAGS -O1)
endif()

set(FASTCONV_ISAS baseline)
set(FASTCONV_ISA_FLAGS_baseline "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # GCC 12 moved a number through an MMX register, without the instruction that gives these back to the x87 unit, whose
  # results (long double) are then NaN, anywhere in the process.
  list(APPEND FASTCONV_COMMON_FLAGS -mno-mmx)
  set(FASTCONV_ISA_FLAGS_baseline -march=x86-64-v2)
  list(APPEND FASTCONV_ISAS avx2 avx512)
  set(FASTCONV_ISA_FLAGS_avx2 -march=x86-64-v2 -mavx -mavx2 -mfma -mf16c -mbmi2)
  if(FASTCONV_EMULATE_AVX512)
    set(FASTCONV_ISA_FLAGS_avx512 ${FASTCONV_ISA_FLAGS_avx2})
  else()
    set(FASTCONV_ISA_FLAGS_avx512 ${FASTCONV_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
                                  -mprefer-vector-width=512)
  endif()
  # Older compilers and assemblers do not know the tile instructions: there the level is left out.
  set(CMAKE_REQUIRED_FLAGS "-mamx-tile -mamx-bf16")
  check_cxx_source_compiles("int main() { __asm__ volatile(\"tdpbf16ps %tmm2, %tmm1, %tmm0\"); }"
                            FASTCONV_COMPILER_KNOWS_AMX)
  unset(CMAKE_REQUIRED_FLAGS)
  if(FASTCONV_COMPILER_KNOWS_AMX OR FASTCONV_EMULATE_AMX)
    list(APPEND FASTCONV_ISAS amx)
  endif()
  if(FASTCONV_EMULATE_AMX)
    set(FASTCONV_ISA_FLAGS_amx ${FASTCONV_ISA_FLAGS_avx512})
  else()
    set(FASTCONV_ISA_FLAGS_amx ${FASTCONV_ISA_FLAGS_avx512} -mamx-tile -mamx-bf16)
  endif()
endif()

# Which kernel tables exist; the tables' own files need to know as well.
foreach(isa IN LISTS FASTCONV_ISAS)
  string(TOUPPER ${isa} upper)
  add_compile_definitions(FASTCONV_HAVE_${upper}=1)
endforeach()

function(fastconv_set_flags target)
  target_compile_options(${target} PRIVATE ${FASTCONV_COMMON_FLAGS})
  if(FASTCONV_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(FASTCONV_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${FASTCONV_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${FASTCONV_SANITIZE})
  endif()
  if(FASTCONV_EMULATE_AVX512)
    target_compile_definitions(${target} PRIVATE FASTCONV_EMULATE_AVX512=1)
  endif()
  if(FASTCONV_EMULATE_AMX)
    target_compile_definitions(${target} PRIVATE FASTCONV_EMULATE_AMX=1)
  endif()
endfunction()

# One object library per instruction set, with every op's file for it.
function(fastconv_add_isa_kernels target)
  foreach(isa IN LISTS FASTCONV_ISAS)
    file(GLOB sources CONFIGURE_DEPENDS csrc/cpu/*/${isa}.cpp)
    if(sources)
      add_library(fastconv_kernels_${isa} OBJECT ${sources})
      target_include_directories(fastconv_kernels_${isa} PRIVATE csrc)
      fastconv_set_flags(fastconv_kernels_${isa})
      target_compile_options(fastconv_kernels_${isa} PRIVATE ${FASTCONV_KERNEL_FLAGS} ${FASTCONV_ISA_FLAGS_${isa}})
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:fastconv_kernels_${isa}>)
    endif()
  endforeach()
endfunction()
