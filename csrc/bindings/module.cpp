// The private extension module: a table of contents.
#include "bindings/array_args.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "fastconv's compiled engine; private, use fastconv.functional";
  fastconv::bind_runtime(module);
  fastconv::bind_conv(module);
  fastconv::bind_pool(module);
  fastconv::bind_pool_adaptive(module);
  fastconv::bind_norm(module);
  fastconv::bind_eltwise(module);
  fastconv::bind_update(module);
}
