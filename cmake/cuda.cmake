# The CUDA part: a second extension that is loaded with the first device array, and, for the tests, the same sources on
# the emulator. Neither is part of _core, which is the same with and without them.
# Off unless asked for: the kernels take several minutes to compile.
option(FASTCONV_CUDA "Build the CUDA kernels where nvcc is found" OFF)
option(FASTCONV_CUDA_EMULATION "Build the CUDA kernels as host code, to test them without a GPU" OFF)
set(FASTCONV_CUDA_ARCHITECTURES 75 80 86 89 90 100 120 CACHE STRING "Compute capabilities to make machine code for")
# The compiler's front half runs once for each of these, and only the assembler for each target. From 8.0 to 9.0 the
# machine code is the same as from their own PTX; for 10.0 and 12.0 nvcc 13.0 makes PTX that unrolls more, and spills.
set(FASTCONV_CUDA_PTX 75 80 CACHE STRING "Compute capabilities to make PTX for, from which the targets' code is made")

file(GLOB FASTCONV_CUDA_BINDINGS CONFIGURE_DEPENDS csrc/bindings/cuda/*.cpp)
file(GLOB FASTCONV_CUDA_KERNELS CONFIGURE_DEPENDS csrc/cuda/*/*.cu)
set(FASTCONV_CUDA_SHARED csrc/core/error.cpp csrc/core/map.cpp csrc/core/window.cpp csrc/core/pool_shape.cpp)

# Sets `result` to nvcc's -gencode arguments: each target by the newest PTX that is not newer than itself; the PTX of the
# last target stays in the module, for devices that are newer than all.
function(fastconv_cuda_targets result)
  set(all)
  foreach(target IN LISTS FASTCONV_CUDA_ARCHITECTURES)
    set(ptx)
    foreach(virtual IN LISTS FASTCONV_CUDA_PTX)
      if(virtual LESS_EQUAL target)
        set(ptx ${virtual})
      endif()
    endforeach()
    if(NOT ptx)
      message(FATAL_ERROR "FASTCONV_CUDA_ARCHITECTURES: ${target} is older than the oldest PTX, ${FASTCONV_CUDA_PTX}")
    endif()
    list(APPEND all arch=compute_${ptx},code=sm_${target})
  endforeach()
  list(APPEND all arch=compute_${ptx},code=compute_${ptx})
  set(${result} ${all} PARENT_SCOPE)
endfunction()

if(FASTCONV_CUDA)
  include(CheckLanguage)
  # Each file asks for its architectures itself.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
      message(WARNING "nvcc ${CMAKE_CUDA_COMPILER_VERSION}: the CUDA part needs 13.0 or newer and is left out")
    else()
      set(FASTCONV_WITH_CUDA ON)
    endif()
  else()
    message(WARNING "FASTCONV_CUDA: nvcc is not found; the package is built without CUDA kernels")
  endif()
endif()

if(FASTCONV_WITH_CUDA)
  fastconv_cuda_targets(targets)
  string(REPLACE ";" "," names "${FASTCONV_CUDA_ARCHITECTURES}")
  pybind11_add_module(_cuda MODULE NO_EXTRAS ${FASTCONV_CUDA_BINDINGS} ${FASTCONV_CUDA_KERNELS} csrc/cuda/runtime.cu
                                             ${FASTCONV_CUDA_SHARED})
  target_include_directories(_cuda PRIVATE csrc)
  target_compile_definitions(_cuda PRIVATE FASTCONV_CUDA_MODULE=_cuda FASTCONV_CUDA_ARCHITECTURES="${names}")
  target_compile_options(_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow>
    $<$<COMPILE_LANGUAGE:CUDA>:SHELL:-std=c++17 -O3 --threads 1 -Xfatbin=-compress-all -compress-mode=size
                               -Xcompiler=-Wall,-Wextra,-Wno-unused-parameter --diag-suppress=177,20012>)
  foreach(target IN LISTS targets)
    target_compile_options(_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-gencode ${target}>")
  endforeach()
  set_target_properties(_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
                                         CUDA_STANDARD 17 CUDA_ARCHITECTURES OFF)
  target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,--strip-all)
  install(TARGETS _cuda LIBRARY DESTINATION fastconv)
endif()

if(FASTCONV_CUDA_EMULATION)
  set_source_files_properties(${FASTCONV_CUDA_KERNELS} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  pybind11_add_module(_cuda_emu MODULE NO_EXTRAS ${FASTCONV_CUDA_BINDINGS} ${FASTCONV_CUDA_KERNELS}
                                                 ${FASTCONV_CUDA_SHARED} tests/emu/emu.cpp tests/emu/runtime.cpp)
  target_include_directories(_cuda_emu PRIVATE csrc tests/emu)
  target_compile_definitions(_cuda_emu PRIVATE FASTCONV_CUDA_MODULE=_cuda_emu FASTCONV_EMULATED=1)
  fastconv_set_flags(_cuda_emu)
  target_compile_options(_cuda_emu PRIVATE -O2)
endif()
