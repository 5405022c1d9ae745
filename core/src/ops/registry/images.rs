//! The cases of operations on images: convolutions and pools.

use super::cases::{any, case, float, sums};
use super::{Accuracy, Domain, OpCase};
use crate::{ConvOptions, PoolOptions, Tensor};

pub(super) fn convolutions() -> Vec<OpCase> {
    fn one() -> ConvOptions<1> {
        ConvOptions::new()
    }
    fn two() -> ConvOptions<2> {
        ConvOptions::new()
    }
    type Apply = fn(&[Tensor]) -> Tensor;
    // A sum has as many terms as a kernel has weights for one output: up to 603.
    let sums =
        |name, image, weight, f: Apply| sums(name, [float(image), float(weight)], f).accurate_to(Accuracy::Sums(40.0));
    let conv1d = |name, weight, f: Apply| sums(name, "ab7", weight, f);
    let conv2d = sums;
    vec![
        conv1d("conv1d", "cb3", |t| t[0].conv1d(&t[1], &one())),
        conv1d("conv1d, stride and padding", "cb3", |t| t[0].conv1d(&t[1], &one().stride(2).padding(1))),
        conv1d("conv1d, dilation", "cb2", |t| t[0].conv1d(&t[1], &one().dilation(3).padding(2))),
        conv1d("conv1d, kernel of 1", "cb1", |t| t[0].conv1d(&t[1], &one().stride(3))),
        conv2d("conv2d", "ab45", "cb32", |t| t[0].conv2d(&t[1], &two())),
        conv2d("conv2d, padding", "ab34", "cb33", |t| t[0].conv2d(&t[1], &two().padding(1))),
        conv2d("conv2d, stride and padding", "ab54", "cb32", |t| {
            t[0].conv2d(&t[1], &two().stride([2, 3]).padding([1, 2]))
        }),
        conv2d("conv2d, dilation", "ab54", "cb22", |t| t[0].conv2d(&t[1], &two().dilation([2, 1]).padding([0, 1]))),
        conv2d("conv2d, kernel of 1, stride", "ab45", "cb11", |t| t[0].conv2d(&t[1], &two().stride(2))),
        conv2d("conv2d, two groups", "a434", "6222", |t| t[0].conv2d(&t[1], &two().groups(2).padding([1, 0]))),
        conv2d("conv2d, a group per channel", "a344", "3133", |t| {
            t[0].conv2d(&t[1], &two().groups(3).stride(2).padding(1))
        }),
        sums("conv_transpose1d", "ab4", "bc3", |t| t[0].conv_transpose1d(&t[1], &one())),
        sums("conv_transpose1d, all options", "a44", "423", |t| {
            t[0].conv_transpose1d(&t[1], &one().stride(3).padding(1).output_padding(2).dilation(2).groups(2))
        }),
        conv2d("conv_transpose2d", "ab23", "bc22", |t| t[0].conv_transpose2d(&t[1], &two())),
        conv2d("conv_transpose2d, stride and padding", "ab23", "bc33", |t| {
            t[0].conv_transpose2d(&t[1], &two().stride(2).padding(1).output_padding([1, 0]))
        }),
        conv2d("conv_transpose2d, much padding", "ab34", "bc12", |t| {
            t[0].conv_transpose2d(&t[1], &two().padding([1, 1]).dilation([1, 2]))
        }),
    ]
}

pub(super) fn pools() -> Vec<OpCase> {
    fn one(kernel: usize) -> PoolOptions<1> {
        PoolOptions::new(kernel)
    }
    fn two(kernel: [usize; 2]) -> PoolOptions<2> {
        PoolOptions::new(kernel)
    }
    let apart = |shape| float(shape).within(Domain::Apart(0.0));
    vec![
        case("max_pool1d", [apart("ab7")], |t| t[0].max_pool1d(&one(2))),
        case("max_pool1d, overlapping, padding", [apart("ab7")], |t| t[0].max_pool1d(&one(3).stride(2).padding(1))),
        case("max_pool2d", [apart("ab45")], |t| t[0].max_pool2d(&two([2, 2]))),
        case("max_pool2d, overlapping, padding", [apart("ab56")], |t| {
            t[0].max_pool2d(&two([3, 2]).stride([2, 1]).padding([1, 0]))
        }),
        case("max_pool2d, with gaps", [apart("ab57")], |t| t[0].max_pool2d(&two([1, 2]).stride([3, 3]))),
        sums("avg_pool1d", [float("ab7")], |t| t[0].avg_pool1d(&one(3).stride(2).padding(1))),
        sums("avg_pool2d", [float("ab45")], |t| t[0].avg_pool2d(&two([2, 2]))),
        sums("avg_pool2d, overlapping, padding", [float("ab45")], |t| {
            t[0].avg_pool2d(&two([3, 2]).stride([1, 2]).padding([1, 0]))
        }),
        sums("adaptive_avg_pool1d", [float("ab7")], |t| t[0].adaptive_avg_pool1d(3)),
        sums("adaptive_avg_pool2d, of all", [float("ab45")], |t| t[0].adaptive_avg_pool2d(1)),
        sums("adaptive_avg_pool2d", [float("ab47")], |t| t[0].adaptive_avg_pool2d([2, 3])),
        sums("adaptive_avg_pool2d, unequal", [float("ab53")], |t| t[0].adaptive_avg_pool2d([3, 3])),
        case("upsample_nearest2d", [any("ab23")], |t| t[0].upsample_nearest2d([2, 3])),
    ]
}
