//! Products of half precision against the f32 kernel: the widened product rounded, bit for bit.

use smallvec::{SmallVec, smallvec};
use tapeflow_ir::DType;
use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};

use super::{Buffer, Rng, compile, isas, run};
use crate::program::kernel::{Dims, Kernel, Layout, Matmul, Shifts, Strides};

/// A layout from strides.
fn layout(strides: &[isize]) -> Layout {
    Layout { offset: 0, shifts: Shifts::new(), strides: Strides::from_slice(strides) }
}

fn check(matmul: &Matmul, lens: [usize; 3], rng: &mut Rng, isa: crate::cpu::Isa) {
    let is_f16 = matmul.dtype == DType::F16;
    let widen = |bits: u16| if is_f16 { f16_to_f32(bits) } else { bf16_to_f32(bits) };
    let narrow = |x: f32| if is_f16 { f16_from_f32(x) } else { bf16_from_f32(x) };
    let [a, b] = [lens[0], lens[1]].map(|len| Buffer::random(rng, matmul.dtype, len, false));
    let wide = |x: &Buffer| {
        let values: Vec<f32> = x.slice::<u16>().iter().map(|&bits| widen(bits)).collect();
        Buffer::of(DType::F32, &values)
    };
    let mut widened = [wide(&a), wide(&b), Buffer::new(DType::F32, lens[2])];
    let wide = Matmul { dtype: DType::F32, ..matmul.clone() };
    run(&*compile(Kernel::Matmul(wide), isa), &mut widened, &[]).unwrap();
    let mut halves = [a, b, Buffer::new(matmul.dtype, lens[2])];
    run(&*compile(Kernel::Matmul(matmul.clone()), isa), &mut halves, &[]).unwrap();
    let expected: Vec<u16> = widened[2].slice::<f32>().iter().map(|&x| narrow(x)).collect();
    assert!(halves[2].slice::<u16>() == &expected[..], "{isa:?} {matmul:?}");
}

#[test]
fn products_are_the_widened_ones_rounded() {
    let mut rng = Rng(41);
    let shapes = [
        (1, 1, 1),
        (4, 5, 7),
        (3, 2, 0),
        (0, 3, 4),
        (1, 300, 64),
        (300, 1, 64),
        (33, 65, 129),
        (260, 200, 70),
        (16, 17, 300),
    ];
    for dtype in [DType::F16, DType::BF16] {
        for (m, n, k) in shapes {
            for batch in [&[][..], &[3]] {
                for bits in 0..8 {
                    let on = |bit: usize| bits >> bit & 1 == 1;
                    let lie = |rows: usize, cols: usize, turned: bool, repeated: bool| {
                        let item = if repeated { 0 } else { (rows * cols) as isize };
                        let last = if turned { [1, rows as isize] } else { [cols as isize, 1] };
                        layout(&[&[item][..batch.len()], &last].concat())
                    };
                    let (a, b) = (lie(m, k, on(0), false), lie(k, n, on(1), on(2)));
                    let [m, n, k]: [Dims; 3] = [m, n, k].map(|extent| smallvec![extent]);
                    let items: usize = batch.iter().product();
                    let lens = [items * m[0] * k[0], items * k[0] * n[0], items * m[0] * n[0]];
                    let matmul = Matmul { dtype, batch: SmallVec::from_slice(batch), m, n, k, a, b };
                    check(&matmul, lens, &mut rng, isas()[bits % isas().len()]);
                }
            }
        }
    }
}

/// The windows of a convolution: lines and sums along several axes, side by side or two apart.
#[test]
fn windows_are_the_widened_ones_rounded() {
    let mut rng = Rng(42);
    let (channels, outs, extent, kernel) = (3, 20, 17, 3);
    for dtype in [DType::F16, DType::BF16] {
        for (turn, isa) in isas().into_iter().cycle().take(4).enumerate() {
            let stride = 1 + (turn % 2) as isize;
            let places = (extent - kernel) / stride as usize + 1;
            let (e, k) = (extent as isize, kernel as isize);
            let a = layout(&[channels as isize * k * k, k * k, k, 1]);
            let b = layout(&[e * e, e, 1, stride * e, stride]);
            let (m, n): (Dims, Dims) = (smallvec![outs], smallvec![places, places]);
            let sums: Dims = smallvec![channels, kernel, kernel];
            let lens = [outs * channels * kernel * kernel, channels * extent * extent, outs * places * places];
            let matmul = Matmul { dtype, batch: Dims::new(), m, n, k: sums, a, b };
            check(&matmul, lens, &mut rng, isa);
        }
    }
}
