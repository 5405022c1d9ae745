//! Convolutions by minimal filtering: what places see, exact and rounded sums, and what their bits may not depend on.

use tapeflow_ir::DType;

use super::{Buffer, Rng, compile, isas, run};
use crate::cpu::isa::Isa;
use crate::program::kernel::{Convolution, ConvolutionPart, Kernel, Layout, Sliding};

/// `[items, groups, channels, outputs, rows, columns]` of an image in a frame of one zero, and a kernel of 3 × 3.
type Extents = [usize; 6];

fn strides(extents: [usize; 5], order: [usize; 5]) -> Layout {
    let mut strides = [0; 5];
    let mut stride = 1;
    for axis in order.into_iter().rev() {
        strides[axis] = stride;
        stride *= extents[axis] as isize;
    }
    Layout { offset: 0, shifts: Default::default(), strides: strides.into_iter().collect() }
}

const IN_ORDER: [usize; 5] = [0, 1, 2, 3, 4];

fn convolution([items, groups, channels, outputs, rows, columns]: Extents, orders: [[usize; 5]; 2]) -> Convolution {
    let axis = |stored: usize| Sliding {
        stored,
        before: 1,
        spread: 1,
        framed: stored + 2,
        taps: 3,
        places: stored,
        stride: 1,
        dilation: 1,
    };
    Convolution {
        dtype: DType::F32,
        part: ConvolutionPart::Places,
        items,
        groups,
        channels,
        outputs,
        axes: [axis(rows), axis(columns)],
        reversed: false,
        is_minimal: true,
        image: strides([items, groups, channels, rows, columns], orders[0]),
        other: strides([groups, outputs, channels, 3, 3], orders[1]),
    }
}

fn places(convolution: Convolution, isa: Isa, kernel: &[f32], image: &[f32]) -> Vec<f32> {
    let Convolution { items, groups, outputs, axes: [down, across], .. } = convolution;
    let count = items * groups * outputs * down.places * across.places;
    let of = |values: &[f32]| Buffer::of(DType::F32, values);
    let mut buffers = [of(kernel), of(image), Buffer::new(DType::F32, count)];
    run(&*compile(Kernel::Convolution(convolution), isa), &mut buffers, &[]).unwrap();
    buffers[2].slice::<f32>()[..count].to_vec()
}

fn random(rng: &mut Rng, count: usize) -> Vec<f32> {
    Buffer::random(rng, DType::F32, count, false).slice::<f32>()[..count].to_vec()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

const CASES: [Extents; 4] = [[1, 1, 8, 9, 32, 32], [3, 1, 16, 16, 8, 8], [2, 2, 9, 8, 11, 13], [1, 1, 70, 33, 16, 14]];

/// An infinity or a NaN is seen in the places of its windows, and nowhere else.
#[test]
fn what_a_place_does_not_see_does_not_reach_it() {
    let mut rng = Rng(81);
    for [_, groups, channels, outputs, rows, columns] in CASES {
        let extents = [1, groups, channels, outputs, rows, columns];
        let image = random(&mut rng, groups * channels * rows * columns);
        let kernel = random(&mut rng, groups * outputs * channels * 9);
        for isa in isas() {
            let before = places(convolution(extents, [IN_ORDER; 2]), isa, &kernel, &image);
            for (value, [y, x]) in [(f32::NAN, [3, 4]), (f32::INFINITY, [0, 7]), (f32::NEG_INFINITY, [5, 0])] {
                let mut image = image.clone();
                image[(channels - 1) * rows * columns + y * columns + x] = value;
                let after = places(convolution(extents, [IN_ORDER; 2]), isa, &kernel, &image);
                for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                    let [group, py, px] = [i / (outputs * rows * columns), i / columns % rows, i % columns];
                    let is_seen = group == 0 && py.abs_diff(y) <= 1 && px.abs_diff(x) <= 1;
                    let fits = if is_seen { !after.is_finite() } else { after.to_bits() == before.to_bits() };
                    assert!(fits, "{extents:?} on {isa}, {value} at {y}, {x}: {after} for {before} at {py}, {px}");
                }
            }
        }
    }
}

/// Neither the number of images nor where operands lie changes a bit.
#[test]
fn bits_depend_on_shapes_alone() {
    let mut rng = Rng(82);
    for extents @ [items, groups, channels, outputs, rows, columns] in CASES {
        let each = groups * channels * rows * columns;
        let (image, kernel) = (random(&mut rng, items * each), random(&mut rng, groups * outputs * channels * 9));
        for isa in isas() {
            let expected = bits(&places(convolution(extents, [IN_ORDER; 2]), isa, &kernel, &image));
            let one = [1, groups, channels, outputs, rows, columns];
            let alone = (image.chunks_exact(each))
                .flat_map(|image| bits(&places(convolution(one, [IN_ORDER; 2]), isa, &kernel, image)));
            assert!(expected == alone.collect::<Vec<u32>>(), "{extents:?} on {isa}, one by one");
            let orders = [[0, 3, 4, 1, 2], [1, 4, 0, 2, 3]];
            let turned = |values: &[f32], extents: [usize; 5], order: [usize; 5]| {
                let layout = strides(extents, order);
                let mut turned = vec![0.0; values.len()];
                for (mut i, value) in values.iter().enumerate() {
                    let mut at = 0;
                    for (&extent, &stride) in extents.iter().zip(&layout.strides).rev() {
                        at += (i % extent) * stride as usize;
                        i /= extent;
                    }
                    turned[at] = *value;
                }
                turned
            };
            let image = turned(&image, [items, groups, channels, rows, columns], orders[0]);
            let kernel = turned(&kernel, [groups, outputs, channels, 3, 3], orders[1]);
            let found = places(convolution(extents, orders), isa, &kernel, &image);
            assert!(expected == bits(&found), "{extents:?} on {isa}, laid out in another order");
        }
    }
}

/// A kernel's gradient neither depends on where operands lie nor on what lies between them.
#[test]
fn gradients_of_kernels_depend_on_what_is_seen_alone() {
    let mut rng = Rng(84);
    for [items, groups, channels, outputs, rows, columns] in
        [[1, 1, 16, 9, 32, 32], [9, 1, 16, 16, 8, 8], [2, 2, 14, 8, 11, 12], [1, 1, 70, 33, 16, 14]]
    {
        let extents = [items, groups, channels, outputs, rows, columns];
        let shapes = [[items, groups, outputs, rows, columns], [items, groups, channels, rows, columns]];
        let values = shapes.map(|shape| random(&mut rng, shape.iter().product()));
        // The outermost axis first, and room between the elements of the innermost.
        let layouts = [(IN_ORDER, 1), (IN_ORDER, 3), ([0, 3, 4, 1, 2], 1), ([1, 4, 0, 2, 3], 1)];
        for isa in isas() {
            let found = layouts.map(|(order, gap)| {
                let placed = [0, 1].map(|i| {
                    let mut layout = strides(shapes[i], order);
                    layout.strides.iter_mut().for_each(|stride| *stride *= gap);
                    let mut placed = vec![f32::NAN; values[i].len() * gap as usize];
                    for (mut element, value) in values[i].iter().enumerate() {
                        let mut at = 0;
                        for (&extent, &stride) in shapes[i].iter().zip(&layout.strides).rev() {
                            at += (element % extent) * stride as usize;
                            element /= extent;
                        }
                        placed[at] = *value;
                    }
                    (layout, Buffer::of(DType::F32, &placed))
                });
                let [other, image] = [0, 1].map(|i| placed[i].0.clone());
                let part = ConvolutionPart::Kernel;
                let convolution = Convolution { part, other, image, ..convolution(extents, [IN_ORDER; 2]) };
                let count = groups * outputs * channels * 9;
                let [places, image] = placed.map(|(_, buffer)| buffer);
                let mut buffers = [places, image, Buffer::new(DType::F32, count)];
                run(&*compile(Kernel::Convolution(convolution), isa), &mut buffers, &[]).unwrap();
                bits(&buffers[2].slice::<f32>()[..count])
            });
            let is_same = found.iter().all(|bits| *bits == found[0]);
            assert!(is_same, "{extents:?} on {isa}");
            assert!(found[0].iter().all(|&bits| f32::from_bits(bits).is_finite()), "{extents:?} on {isa}");
        }
    }
}

/// Sums of whole numbers are exact, since a half of each is; others are as near as those of plain sums, or nearly.
#[test]
fn sums_are_exact_or_near() {
    let mut rng = Rng(83);
    for extents @ [items, groups, channels, outputs, rows, columns] in CASES {
        let [image, kernel] = [items * groups * channels * rows * columns, groups * outputs * channels * 9];
        let [image, kernel] = [image, kernel].map(|count| random(&mut rng, count));
        let whole = |values: &[f32]| values.iter().map(|x| (x * 8.0).round()).collect::<Vec<f32>>();
        let plain = || Convolution { is_minimal: false, ..convolution(extents, [IN_ORDER; 2]) };
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let mut buffers = [&kernel, &image].map(|values| Buffer::of(DType::F64, &wide(values))).to_vec();
        buffers.push(Buffer::new(DType::F64, items * groups * outputs * rows * columns));
        let exact = Convolution { dtype: DType::F64, ..plain() };
        run(&*compile(Kernel::Convolution(exact), Isa::Baseline), &mut buffers, &[]).unwrap();
        for isa in isas() {
            let found = places(convolution(extents, [IN_ORDER; 2]), isa, &whole(&kernel), &whole(&image));
            assert_eq!(found, places(plain(), isa, &whole(&kernel), &whole(&image)), "{extents:?} on {isa}");
            let error = |found: Vec<f32>| {
                let squares = found.iter().zip(buffers[2].slice::<f64>()).map(|(x, y)| (f64::from(*x) - y).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let minimal = error(places(convolution(extents, [IN_ORDER; 2]), isa, &kernel, &image));
            let limit = 1.25 * error(places(plain(), isa, &kernel, &image));
            assert!(minimal <= limit, "{extents:?} on {isa}: {minimal} above {limit}");
        }
    }
}
