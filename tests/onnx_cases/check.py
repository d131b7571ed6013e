"""Running one case, and the table of those that are skipped."""

from __future__ import annotations

import numpy

from . import cases, runner

# Reason -> cases. What fails for another reason than listed here, or passes though listed, is an
# error of the tests.
SKIPPED_FOR = {
    "windows over one or three axes; tinyconv's slide over images": """
        node/test_averagepool_1d_default node/test_averagepool_3d_default
        node/test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False
        node/test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True
        node/test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False
        node/test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True
        node/test_averagepool_3d_dilations_small node/test_col2im_5d node/test_maxpool_1d_default
        node/test_maxpool_3d_default node/test_maxpool_3d_dilations
        node/test_maxpool_3d_dilations_use_ref_impl
        node/test_maxpool_3d_dilations_use_ref_impl_large
        pytorch-converted/test_AvgPool3d pytorch-converted/test_AvgPool3d_stride
        pytorch-converted/test_AvgPool3d_stride1_pad0_gpu_input pytorch-converted/test_Conv1d
        pytorch-converted/test_Conv1d_dilated pytorch-converted/test_Conv1d_groups
        pytorch-converted/test_Conv1d_pad1 pytorch-converted/test_Conv1d_pad1size1
        pytorch-converted/test_Conv1d_pad2 pytorch-converted/test_Conv1d_pad2size1
        pytorch-converted/test_Conv1d_stride pytorch-converted/test_Conv3d
        pytorch-converted/test_Conv3d_dilated pytorch-converted/test_Conv3d_dilated_strided
        pytorch-converted/test_Conv3d_groups pytorch-converted/test_Conv3d_no_bias
        pytorch-converted/test_Conv3d_stride pytorch-converted/test_Conv3d_stride_padding
        pytorch-converted/test_MaxPool1d pytorch-converted/test_MaxPool1d_stride
        pytorch-converted/test_MaxPool1d_stride_padding_dilation
        pytorch-converted/test_MaxPool3d pytorch-converted/test_MaxPool3d_stride
        pytorch-converted/test_MaxPool3d_stride_padding pytorch-operator/test_operator_maxpool""",
    "average pooling with dilation, which PyTorch has not either": """
        node/test_averagepool_2d_dilations""",
    "an array of exponents; tinyconv's power takes one number": """
        node/test_pow node/test_pow_bcast_array node/test_pow_example
        node/test_pow_types_float32_int32 node/test_pow_types_float32_int64
        node/test_pow_types_float32_uint32 node/test_pow_types_float32_uint64
        node/test_pow_types_int32_float32 node/test_pow_types_int32_int32
        node/test_pow_types_int64_float32 node/test_pow_types_int64_int64
        pytorch-operator/test_operator_pow""",
    "division of integers that cuts off; tinyconv's is true division, as PyTorch's": """
        node/test_div_int8 node/test_div_int16 node/test_div_int32_trunc node/test_div_uint8
        node/test_div_uint16 node/test_div_uint32 node/test_div_uint64""",
    "padding with the image's own pixels; tinyconv pads with a constant": """
        node/test_edge_pad node/test_reflect_pad node/test_wrap_pad
        pytorch-converted/test_ReflectionPad2d pytorch-converted/test_ReplicationPad2d
        pytorch-operator/test_operator_pad""",
    "dropout's mask as a second output": """
        node/test_dropout_default_mask node/test_dropout_default_mask_ratio
        node/test_training_dropout_default_mask node/test_training_dropout_mask
        node/test_training_dropout_zero_ratio_mask""",
    "dropout drawn from the random numbers of numpy.random.RandomState": """
        node/test_training_dropout node/test_training_dropout_default""",
    "the maxima's positions as a second output": """
        node/test_maxpool_with_argmax_2d_precomputed_pads
        node/test_maxpool_with_argmax_2d_precomputed_strides""",
    "the maximum or minimum of nothing, an error in PyTorch too": """
        node/test_reduce_max_empty_set node/test_reduce_max_empty_set_bool
        node/test_reduce_min_empty_set""",
    "a sequence or an optional value instead of a tensor": """
        node/test_identity_opt node/test_identity_sequence""",
}
SKIPPED = {name: reason for reason, names in SKIPPED_FOR.items() for name in names.split()}


def supported() -> list[cases.Case]:
    """The cases that are made only of nodes that tinyconv has ops for."""
    return [case for case in cases.load() if case.ops <= runner.OPS.keys()]


def check(case: cases.Case) -> None:
    """Raises an error unless all outputs have the expected dtypes, shapes and values."""
    for inputs, expected in case.data_sets:
        outputs = runner.run(case.model, inputs)
        for y, wanted in zip(outputs, expected, strict=True):
            assert y.dtype == wanted.dtype
            assert y.shape == wanted.shape
            numpy.testing.assert_allclose(y, wanted, case.rtol, case.atol)
