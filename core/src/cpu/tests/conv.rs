//! Convolutions against plain loops in f64: frames, strides, dilations, groups, reversed kernels, strided operands.

use tapeflow_ir::DType;

use super::{Buffer, Rng, compile, isas, run};
use crate::program::kernel::{Convolution, ConvolutionPart, Kernel, Layout, Sliding};

/// A layout of these extents with gaps: the axes lie in the order `order`, the outermost first, and along each step is
/// room for `gap` elements more. Also how many elements that takes.
fn layout(extents: [usize; 5], order: [usize; 5], gap: usize) -> (Layout, usize) {
    let mut strides = [0; 5];
    let mut stride = 1;
    for axis in order.into_iter().rev() {
        strides[axis] = stride as isize;
        stride = stride * extents[axis] + gap;
    }
    (Layout { offset: 3, shifts: Default::default(), strides: strides.into_iter().collect() }, stride + 3)
}

const IN_ORDER: [usize; 5] = [0, 1, 2, 3, 4];

/// All indices of these extents.
fn indices(extents: [usize; 5]) -> impl Iterator<Item = [usize; 5]> {
    (0..extents.iter().product()).map(move |mut i: usize| {
        let mut index = [0; 5];
        for axis in (0..5).rev() {
            (index[axis], i) = (i % extents[axis], i / extents[axis]);
        }
        index
    })
}

fn at(layout: &Layout, index: [usize; 5]) -> usize {
    let steps: isize = layout.strides.iter().zip(index).map(|(s, i)| s * i as isize).sum();
    (layout.offset + steps) as usize
}

fn value(buffer: &Buffer, at: usize) -> f64 {
    match buffer.dtype {
        DType::F32 => f64::from(buffer.slice::<f32>()[at]),
        _ => buffer.slice::<f64>()[at],
    }
}

/// Both derivatives by plain loops: per result the sum, and the sum of magnitudes.
fn expected(convolution: &Convolution, other: &Buffer, image: &Buffer) -> Vec<(f64, f64)> {
    let Convolution { part, items, groups, channels, outputs, axes, reversed, .. } = convolution;
    let [down, across] = axes;
    let places = [*items, *groups, *outputs, down.places, across.places];
    let kernel = [*groups, *outputs, *channels, down.taps, across.taps];
    let of_places = *part == ConvolutionPart::Places;
    let mut sums = vec![(0.0, 0.0); if of_places { places } else { kernel }.iter().product()];
    for (y, [n, g, o, py, px]) in indices(places).enumerate() {
        for (w, [_, _, c, ty, tx]) in indices([1, 1, kernel[2], kernel[3], kernel[4]]).enumerate() {
            let tap = |axis: &Sliding, t: usize| if *reversed { axis.taps - 1 - t } else { t };
            let position = |axis: &Sliding, p: usize, t: usize| p * axis.stride + tap(axis, t) * axis.dilation;
            let pixel = down.element(position(down, py, ty)).zip(across.element(position(across, px, tx)));
            let Some((iy, ix)) = pixel else { continue };
            let x = value(image, at(&convolution.image, [n, g, c, iy, ix]));
            let index = if of_places { [g, o, c, ty, tx] } else { [n, g, o, py, px] };
            let term = x * value(other, at(&convolution.other, index));
            let w = (g * outputs + o) * kernel[2..].iter().product::<usize>() + w;
            let sum = &mut sums[if of_places { y } else { w }];
            *sum = (sum.0 + term, sum.1 + term.abs());
        }
    }
    sums
}

/// `(stored, before, spread, after, taps, stride, dilation)` of an axis.
fn axis((stored, before, spread, after, taps, stride, dilation): Axis) -> Sliding {
    let framed = (before + ((stored - 1) * spread + 1) as isize + after) as usize;
    let places = (framed - (taps - 1) * dilation - 1) / stride + 1;
    Sliding { stored, before, spread, framed, taps, places, stride, dilation }
}

type Axis = (usize, isize, usize, isize, usize, usize, usize);

/// `(items, groups, channels, outputs)` and axes.
const CASES: &[([usize; 4], [Axis; 2])] = &[
    ([2, 1, 3, 5], [(7, 1, 1, 1, 3, 1, 1), (9, 1, 1, 1, 3, 1, 1)]),
    ([3, 1, 16, 16], [(8, 1, 1, 1, 3, 1, 1), (8, 1, 1, 1, 3, 1, 1)]),
    ([2, 1, 17, 9], [(5, 0, 1, 0, 3, 1, 1), (33, 2, 1, 3, 5, 1, 1)]),
    ([1, 1, 1, 32], [(28, 1, 1, 1, 3, 1, 1), (28, 1, 1, 1, 3, 1, 1)]),
    ([2, 2, 20, 3], [(6, 1, 1, 0, 2, 2, 1), (11, 2, 1, 1, 3, 2, 2)]),
    ([2, 1, 9, 10], [(5, 2, 2, 3, 3, 1, 1), (4, 2, 3, 2, 3, 1, 1)]),
    ([2, 12, 1, 1], [(10, 1, 1, 1, 3, 1, 1), (10, 1, 1, 1, 3, 1, 1)]),
    ([2, 3, 2, 2], [(10, 4, 1, 4, 3, 3, 4), (12, 2, 1, 0, 3, 3, 2)]),
    ([2, 1, 8, 4], [(1, 0, 1, 0, 1, 1, 1), (50, 3, 1, 2, 7, 2, 1)]),
    ([2, 1, 12, 7], [(9, 0, 1, 0, 1, 2, 1), (9, 0, 1, 0, 1, 2, 1)]),
    ([3, 1, 17, 20], [(7, 1, 1, 1, 3, 1, 1), (9, 1, 1, 1, 3, 1, 1)]),
    ([2, 2, 16, 24], [(14, 1, 1, 1, 3, 1, 1), (14, 1, 1, 1, 3, 1, 1)]),
    ([3, 1, 32, 16], [(6, 2, 1, 0, 3, 1, 1), (21, 0, 1, 2, 3, 1, 1)]),
    ([2, 1, 20, 9], [(8, 2, 2, 3, 3, 1, 1), (9, 2, 2, 2, 3, 1, 1)]),
    ([2, 2, 3, 4], [(6, 0, 2, 1, 1, 1, 1), (5, 3, 3, 4, 4, 1, 2)]),
    ([1, 1, 3, 4], [(1, 0, 1, 0, 1, 1, 1), (30, 2, 2, 2, 5, 1, 1)]),
    ([1, 1, 70, 70], [(6, 1, 1, 1, 3, 1, 1), (6, 1, 1, 1, 3, 1, 1)]),
    ([1, 1, 2, 3], [(90, 3, 1, 3, 7, 1, 1), (61, 3, 1, 3, 7, 1, 1)]),
    ([1, 1, 40, 24], [(40, 1, 1, 1, 3, 1, 1), (56, 1, 1, 1, 3, 1, 1)]),
    // Rows of whole vectors: padded, cropped, of every second column, spread, with taps apart.
    ([2, 1, 16, 17], [(5, 1, 1, 1, 3, 1, 1), (32, 1, 1, 1, 3, 1, 1)]),
    ([2, 1, 5, 7], [(9, 1, 1, 1, 3, 2, 1), (32, 1, 1, 1, 3, 2, 1)]),
    ([2, 2, 6, 16], [(8, 1, 2, 2, 3, 1, 1), (16, 1, 2, 2, 3, 1, 1)]),
    ([3, 1, 6, 5], [(4, 2, 2, 1, 4, 1, 1), (8, 2, 2, 2, 4, 1, 1)]),
    ([2, 1, 3, 4], [(20, 2, 1, 2, 5, 1, 2), (34, 0, 1, 0, 3, 1, 1)]),
    ([2, 1, 2, 3], [(7, 3, 1, 3, 3, 1, 3), (48, 4, 1, 6, 4, 3, 2)]),
    // Several small images at a time; parts of rows that are half a vector.
    ([9, 1, 33, 10], [(4, 1, 1, 1, 3, 1, 1), (4, 1, 1, 1, 3, 1, 1)]),
    ([5, 2, 17, 3], [(8, 1, 1, 1, 3, 1, 1), (8, 1, 1, 1, 3, 1, 1)]),
    ([2, 1, 9, 8], [(8, 1, 2, 2, 3, 1, 1), (8, 1, 2, 2, 3, 1, 1)]),
    ([2, 1, 9, 8], [(5, 1, 2, 1, 3, 1, 1), (4, 1, 2, 2, 3, 1, 1)]),
    // Few channels, side by side with taps or not; few places; larger kernels; no frame, and a full one.
    ([3, 1, 6, 16], [(14, 0, 1, 0, 5, 1, 1), (14, 0, 1, 0, 5, 1, 1)]),
    ([2, 1, 16, 6], [(10, 4, 1, 4, 5, 1, 1), (10, 4, 1, 4, 5, 1, 1)]),
    ([2, 1, 1, 6], [(28, 2, 1, 2, 5, 1, 1), (28, 2, 1, 2, 5, 1, 1)]),
    ([3, 1, 1, 5], [(9, 0, 1, 0, 7, 1, 1), (11, 0, 1, 0, 7, 1, 1)]),
    ([2, 1, 3, 9], [(12, 1, 1, 1, 3, 1, 1), (12, 1, 1, 1, 3, 1, 1)]),
    ([3, 1, 3, 20], [(13, 3, 1, 3, 7, 2, 1), (13, 3, 1, 3, 7, 2, 1)]),
    ([2, 2, 6, 20], [(12, 0, 1, 0, 7, 1, 1), (11, 0, 1, 0, 7, 1, 1)]),
    ([3, 1, 6, 7], [(9, 2, 1, 2, 5, 2, 1), (28, 2, 1, 2, 5, 2, 1)]),
    ([4, 1, 20, 16], [(5, 0, 1, 0, 3, 1, 1), (5, 0, 1, 0, 3, 1, 1)]),
    ([2, 1, 20, 32], [(9, 2, 1, 2, 5, 1, 1), (20, 2, 1, 2, 5, 1, 1)]),
    ([2, 1, 32, 20], [(7, 1, 1, 1, 3, 2, 1), (7, 1, 1, 1, 3, 2, 1)]),
    ([2, 1, 6, 9], [(8, 2, 1, 2, 3, 1, 2), (10, 2, 1, 2, 3, 1, 2)]),
    ([5, 1, 33, 18], [(3, 1, 1, 1, 3, 1, 1), (5, 0, 1, 0, 3, 1, 1)]),
    ([2, 1, 3, 17], [(9, 3, 3, 3, 5, 1, 1), (5, 2, 2, 2, 4, 1, 1)]),
    ([2, 1, 7, 1], [(24, 1, 1, 1, 3, 1, 1), (24, 1, 1, 1, 3, 1, 1)]),
    ([2, 1, 5, 2], [(11, 2, 1, 2, 5, 1, 1), (47, 2, 1, 2, 5, 1, 1)]),
    // Rows of three taps: by pairs of places, an odd number of them, lines of whole vectors and not, cropped, of
    // several groups, a row of taps alone, or rows apart.
    ([2, 1, 16, 16], [(32, 1, 1, 1, 3, 1, 1), (32, 1, 1, 1, 3, 1, 1)]),
    ([2, 1, 32, 20], [(7, 1, 1, 1, 3, 1, 1), (11, 1, 1, 1, 3, 1, 1)]),
    ([2, 2, 9, 8], [(12, 2, 1, 2, 3, 1, 1), (33, 0, 1, 1, 3, 1, 1)]),
    ([2, 1, 24, 9], [(1, 0, 1, 0, 1, 1, 1), (90, 1, 1, 1, 3, 1, 1)]),
    ([2, 1, 13, 17], [(9, 2, 1, 2, 3, 1, 2), (18, -1, 1, 2, 3, 1, 1)]),
    ([1, 1, 70, 33], [(16, 1, 1, 1, 3, 1, 1), (14, 1, 1, 1, 3, 1, 1)]),
    // Many small images: whole vectors of them, and some lanes of nothing; several groups; strides, spreads, crops.
    ([32, 1, 3, 20], [(5, 0, 1, 0, 3, 1, 1), (5, 0, 1, 0, 3, 1, 1)]),
    ([13, 1, 20, 9], [(4, 1, 1, 1, 3, 1, 1), (4, 1, 1, 1, 3, 1, 1)]),
    ([30, 2, 6, 10], [(7, 2, 1, 2, 5, 2, 1), (6, 2, 1, 2, 5, 2, 1)]),
    ([16, 1, 9, 6], [(3, 1, 2, 2, 3, 1, 1), (4, 1, 2, 2, 3, 1, 1)]),
    ([15, 2, 8, 3], [(3, 2, 3, 1, 4, 1, 1), (4, 1, 2, 1, 3, 1, 1)]),
    ([14, 1, 7, 17], [(6, -1, 1, 0, 3, 1, 1), (7, 1, 1, -1, 2, 1, 2)]),
    ([16, 1, 2, 1], [(3, 0, 1, 0, 2, 1, 1), (3, 1, 1, 1, 2, 1, 1)]),
    ([48, 1, 16, 16], [(5, 2, 1, 2, 5, 1, 1), (3, 2, 1, 2, 5, 1, 1)]),
];

#[test]
fn convolutions_against_loops() {
    let mut rng = Rng(71);
    for (case, &([items, groups, channels, outputs], axes)) in CASES.iter().enumerate() {
        for (part, reversed) in
            [ConvolutionPart::Places, ConvolutionPart::Kernel].into_iter().flat_map(|p| [(p, false), (p, true)])
        {
            let axes = axes.map(axis);
            let [down, across] = axes;
            let is_minimal =
                axes.iter().all(|a| a.stride == 1 && a.spread == 1) && across.taps == 3 && across.dilation == 1;
            let (order, gap) = match (case + usize::from(reversed)) % 3 {
                0 => (IN_ORDER, 0),
                1 => (IN_ORDER, 1),
                _ => ([0, 3, 4, 1, 2], 0),
            };
            let (image, image_len) = layout([items, groups, channels, down.stored, across.stored], order, gap);
            let places = [items, groups, outputs, down.places, across.places];
            let kernel = [groups, outputs, channels, down.taps, across.taps];
            let (of_other, of_result) =
                if part == ConvolutionPart::Places { (kernel, places) } else { (places, kernel) };
            let (other, other_len) = layout(of_other, if gap == 0 { order } else { [1, 0, 2, 4, 3] }, gap);
            for dtype in [DType::F32, DType::F64] {
                let (image, other) = (image.clone(), other.clone());
                let convolution = Convolution {
                    dtype,
                    part,
                    items,
                    groups,
                    channels,
                    outputs,
                    axes,
                    reversed,
                    is_minimal,
                    image,
                    other,
                };
                let results: usize = of_result.iter().product();
                let mut buffers = [
                    Buffer::random(&mut rng, dtype, other_len, false),
                    Buffer::random(&mut rng, dtype, image_len, false),
                    Buffer::new(dtype, results + 64),
                ];
                let expected = expected(&convolution, &buffers[0], &buffers[1]);
                let epsilon = if dtype == DType::F32 { 3e-6 } else { 1e-14 };
                for isa in isas() {
                    buffers[2] = Buffer::new(dtype, results + 64);
                    let behind = value(&buffers[2], results);
                    run(&*compile(Kernel::Convolution(convolution.clone()), isa), &mut buffers, &[]).unwrap();
                    for (i, (sum, size)) in expected.iter().enumerate() {
                        let found = value(&buffers[2], i);
                        let fits = (found - sum).abs() <= size * epsilon;
                        assert!(fits, "{convolution:?} on {isa} at {i}: {found} for {sum}");
                    }
                    let untouched =
                        (results..results + 64).all(|i| value(&buffers[2], i).to_bits() == behind.to_bits());
                    assert!(untouched, "{convolution:?} on {isa} writes behind its result");
                }
            }
        }
    }
}

/// Many small images are computed side by side, a few one after the other: with the same bits.
#[test]
fn places_do_not_depend_on_the_number_of_images() {
    let mut rng = Rng(72);
    for axes in [[(5, 2, 1, 2, 3, 1, 1), (6, 1, 1, 1, 3, 1, 1)], [(3, 1, 2, 2, 3, 1, 1), (4, 2, 2, 1, 4, 1, 1)]] {
        let (groups, channels, outputs, axes) = (2, 7, 9, axes.map(axis));
        let [down, across] = axes;
        let results = groups * outputs * down.places * across.places;
        let (other, other_len) = layout([groups, outputs, channels, down.taps, across.taps], IN_ORDER, 0);
        for dtype in [DType::F32, DType::F64] {
            let (_, image_len) = layout([16, groups, channels, down.stored, across.stored], IN_ORDER, 0);
            let image = Buffer::random(&mut rng, dtype, image_len, false);
            let kernel = Buffer::random(&mut rng, dtype, other_len, false);
            for isa in isas() {
                let found = [1, 16].map(|items| {
                    let (layout, _) = layout([items, groups, channels, down.stored, across.stored], IN_ORDER, 0);
                    let (part, reversed, other) = (ConvolutionPart::Places, true, other.clone());
                    let convolution = Convolution {
                        dtype,
                        part,
                        items,
                        groups,
                        channels,
                        outputs,
                        axes,
                        reversed,
                        is_minimal: false,
                        image: layout,
                        other,
                    };
                    let mut buffers = [kernel.clone(), image.clone(), Buffer::new(dtype, items * results)];
                    run(&*compile(Kernel::Convolution(convolution), isa), &mut buffers, &[]).unwrap();
                    (0..results).map(|i| value(&buffers[2], i).to_bits()).collect::<Vec<u64>>()
                });
                assert!(found[0] == found[1], "{axes:?} in {dtype:?} on {isa}");
            }
        }
    }
}

/// What lies around an image, and in other channels, is not seen: not even as a NaN times zero.
#[test]
fn neighbours_are_not_seen() {
    for part in [ConvolutionPart::Places, ConvolutionPart::Kernel] {
        for channels in [2, 16] {
            let axes = [axis((6, 1, 1, 1, 3, 1, 1)), axis((7, 1, 1, 1, 3, 1, 1))];
            let (items, groups, outputs) = (2, 2, 3);
            let (image, image_len) = layout([items, groups, channels, 6, 7], IN_ORDER, 5);
            let kernel = [groups, outputs, channels, 3, 3];
            let places = [items, groups, outputs, 6, 7];
            let of_other = if part == ConvolutionPart::Places { kernel } else { places };
            let (other, other_len) = layout(of_other, IN_ORDER, 3);
            let of = |len: usize, layout: &Layout, extents: [usize; 5]| {
                let mut values = vec![f32::NAN; len];
                indices(extents).for_each(|index| values[at(layout, index)] = 1.0);
                Buffer::of(DType::F32, &values)
            };
            let of_image = of(image_len, &image, [items, groups, channels, 6, 7]);
            let of_other = of(other_len, &other, of_other);
            let dtype = DType::F32;
            let (reversed, is_minimal) = (false, true);
            let convolution =
                Convolution { dtype, part, items, groups, channels, outputs, axes, reversed, is_minimal, image, other };
            let results = if part == ConvolutionPart::Places { places } else { kernel }.iter().product();
            for isa in isas() {
                let mut buffers = [of_other.clone(), of_image.clone(), Buffer::new(DType::F32, results)];
                run(&*compile(Kernel::Convolution(convolution.clone()), isa), &mut buffers, &[]).unwrap();
                let found = buffers[2].slice::<f32>();
                assert!(found.iter().all(|x| x.is_finite()), "{convolution:?} on {isa}");
            }
        }
    }
}
