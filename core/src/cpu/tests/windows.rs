//! Products whose rows, columns and sums run along several axes: windows that overlap, reversed kernels, transposes.

use smallvec::smallvec;
use tapeflow_ir::DType;

use super::{Buffer, Rng, compile, isas, run};
use crate::program::kernel::{Dims, Kernel, Layout, Matmul, Strides};

/// Offsets of all indices of `dims`, row-major.
fn offsets(dims: &[usize], strides: &[isize]) -> Vec<isize> {
    dims.iter()
        .zip(strides)
        .fold(vec![0], |out, (&d, &s)| out.iter().flat_map(|&at| (0..d as isize).map(move |i| at + i * s)).collect())
}

/// A layout that stays within what it starts in, and how many elements that takes.
fn layout(strides: &[isize], dims: &[usize]) -> (Layout, usize) {
    let all = offsets(dims, strides);
    let (low, high) = (all.iter().min().unwrap_or(&0), all.iter().max().unwrap_or(&0));
    let strides: Strides = strides.iter().copied().collect();
    (Layout { offset: 2 - low, shifts: Default::default(), strides }, (3 + high - low) as usize)
}

struct Case {
    batch: Dims,
    m: Dims,
    n: Dims,
    k: Dims,
    a: Vec<isize>,
    b: Vec<isize>,
}

/// The result with k in fixed order, in f64, and the sums of magnitudes.
fn check(case: &Case, rng: &mut Rng) {
    let Case { batch, m, n, k, .. } = case;
    let (a, a_len) = layout(&case.a, &[&batch[..], m, k].concat());
    let (b, b_len) = layout(&case.b, &[&batch[..], k, n].concat());
    let of = |l: &Layout, from: usize, dims: &[usize]| offsets(dims, &l.strides[from..from + dims.len()]);
    let (ab, bb) = (of(&a, 0, batch), of(&b, 0, batch));
    let (am, ak) = (of(&a, batch.len(), m), of(&a, batch.len() + m.len(), k));
    let (bk, bn) = (of(&b, batch.len(), k), of(&b, batch.len() + k.len(), n));
    for dtype in [DType::F32, DType::F64] {
        let mut buffers = [
            Buffer::random(rng, dtype, a_len, false),
            Buffer::random(rng, dtype, b_len, false),
            Buffer::new(dtype, ab.len() * am.len() * bn.len()),
        ];
        let value = |buffer: &Buffer, at: isize| match dtype {
            DType::F32 => f64::from(buffer.slice::<f32>()[at as usize]),
            _ => buffer.slice::<f64>()[at as usize],
        };
        let epsilon = if dtype == DType::F32 { 1e-6 } else { 1e-14 };
        for isa in isas() {
            let (m, n, k) = (m.clone(), n.clone(), k.clone());
            let matmul = Matmul { dtype, batch: batch.clone(), m, n, k, a: a.clone(), b: b.clone() };
            run(&*compile(Kernel::Matmul(matmul.clone()), isa), &mut buffers, &[]).unwrap();
            let mut as_group = Buffer::new(dtype, ab.len() * am.len() * bn.len());
            std::mem::swap(&mut as_group, &mut buffers[2]);
            run(&*compile(Kernel::Group(matmul.as_group()), isa), &mut buffers, &[]).unwrap();
            let largest =
                (0..buffers[2].len).map(|at| (value(&buffers[2], at as isize), value(&as_group, at as isize)));
            for (group, product) in largest {
                assert!((group - product).abs() <= 1e4 * epsilon, "{matmul:?} as a group: {group}, not {product}");
            }
            buffers[2] = as_group;
            let mut at = 0;
            for (x, y) in ab.iter().zip(&bb) {
                for (i, j) in am.iter().flat_map(|i| bn.iter().map(move |j| (i, j))) {
                    let term = |(p, q): (&isize, &isize)| {
                        value(&buffers[0], a.offset + x + i + p) * value(&buffers[1], b.offset + y + q + j)
                    };
                    let sum: f64 = ak.iter().zip(&bk).map(term).sum();
                    let size: f64 = ak.iter().zip(&bk).map(term).map(f64::abs).sum();
                    let found = value(&buffers[2], at);
                    assert!((found - sum).abs() <= size * epsilon, "{matmul:?} on {isa} at {at}: {found} for {sum}");
                    at += 1;
                }
            }
        }
    }
}

/// Products as of a convolution: an image `(items, channels, rows, cols)` under a kernel of a size, stride, dilation.
#[test]
fn windows_of_images() {
    let mut rng = Rng(51);
    for (image, outputs, kernel, stride, dilation) in [
        ([2, 3, 7, 9], 4, [3, 3], [1, 1], [1, 1]),
        ([1, 1, 20, 33], 9, [5, 3], [1, 1], [2, 3]),
        ([2, 5, 12, 11], 3, [3, 2], [2, 3], [1, 2]),
        ([1, 20, 10, 10], 17, [3, 3], [1, 1], [1, 1]),
        ([3, 2, 6, 40], 300, [1, 1], [2, 2], [1, 1]),
        ([2, 2, 5, 5], 2, [5, 5], [1, 1], [1, 1]),
    ] {
        let [items, channels, rows, cols] = image;
        let size = |extent: usize, axis: usize| (extent - (kernel[axis] - 1) * dilation[axis] - 1) / stride[axis] + 1;
        let out = [size(rows, 0), size(cols, 1)];
        let step = |by: [usize; 2]| [(by[0] * cols) as isize, by[1] as isize];
        let (image_item, image_channel) = ((channels * rows * cols) as isize, (rows * cols) as isize);
        let taps = (kernel[0] * kernel[1]) as isize;
        let (wide, high) = (kernel[1] as isize, -(kernel[1] as isize));
        for reversed in [false, true] {
            let [kr, kc] = if reversed { [high, -1] } else { [wide, 1] };
            let (batch, m, n) = (smallvec![items], smallvec![outputs], smallvec![out[0], out[1]]);
            let a = vec![0, channels as isize * taps, taps, kr, kc];
            let b = [&[image_item, image_channel][..], &step(dilation), &step(stride)].concat();
            check(&Case { batch, m, n, k: smallvec![channels, kernel[0], kernel[1]], a, b }, &mut rng);
        }
        // The gradient of the kernel: sums over items and places.
        let places = (out[0] * out[1]) as isize;
        let a = vec![places, outputs as isize * places, out[1] as isize, 1];
        let b = [&[image_item][..], &step(stride), &[image_channel], &step(dilation)].concat();
        let (m, n) = (smallvec![outputs], smallvec![channels, kernel[0], kernel[1]]);
        check(&Case { batch: smallvec![], m, n, k: smallvec![items, out[0], out[1]], a, b }, &mut rng);
    }
}

#[test]
fn rows_of_several_axes_and_empty_sums() {
    let mut rng = Rng(52);
    let (m, n, k): (Dims, Dims, Dims) = (smallvec![3, 5], smallvec![4, 2, 3], smallvec![2, 70]);
    let a = vec![1, 200, 1000, 3];
    let b = vec![7, 11, 1, 900, 4];
    check(&Case { batch: smallvec![], m: m.clone(), n: n.clone(), k, a: a.clone(), b: b.clone() }, &mut rng);
    check(&Case { batch: smallvec![], m, n, k: smallvec![0, 70], a, b }, &mut rng);
}
