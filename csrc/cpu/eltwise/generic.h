// The elementwise kernels' templates, over the register type of the file that includes them.
#pragma once

#include "cpu/eltwise/kernels.h"
// The contract comes first: the parts name its row types.
#include "cpu/eltwise/activation.h"
#include "cpu/eltwise/dropout.h"
#include "cpu/eltwise/softmax.h"
