//! Attention in one pass, forward and backward, against plain loops in f64.

use smallvec::SmallVec;
use tapeflow_ir::DType;
use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};

use super::{Buffer, Rng, compile, isas, run};
use crate::cpu::isa::Isa;
use crate::program::kernel::{Attention, AttentionVjp, Kernel, Layout, Mask, Shifts};

fn layout(offset: isize, strides: &[isize]) -> Layout {
    Layout { offset, shifts: Shifts::new(), strides: SmallVec::from_slice(strides) }
}

/// How operands `(B, H, lines, elements)` lie.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// In order.
    Plain,
    /// As parts of one projection `(B, lines, H, elements)`, with something between the lines.
    Projected,
    /// Elements apart from each other, lines side by side.
    Transposed,
}

impl Form {
    fn layout(self, h: usize, lines: usize, elements: usize) -> (Layout, usize) {
        let [h, n, m] = [h, lines, elements].map(|x| x as isize);
        let (layout, item) = match self {
            Form::Plain => (layout(0, &[h * n * m, n * m, m, 1]), h * n * m),
            Form::Projected => (layout(3, &[n * (h * m + 5), m, h * m + 5, 1]), n * (h * m + 5)),
            Form::Transposed => (layout(0, &[h * n * m, n * m, 1, n]), h * n * m),
        };
        (layout, item as usize)
    }
}

struct Case {
    /// B, H, T, S, D, E.
    extents: [usize; 6],
    mask: Mask,
    form: Form,
    first: Vec<i64>,
    /// q, k, v and the cotangent of y, and how they lie.
    operands: [(Buffer, Layout); 4],
}

impl Case {
    fn new(extents: [usize; 6], mask: Mask, form: Form) -> Case {
        let [b, h, t, s, d, e] = extents;
        let mut rng = Rng(29);
        let operands = [(t, d), (s, d), (s, e), (t, e)].map(|(lines, elements)| {
            let (layout, item) = form.layout(h, lines, elements);
            let mut buffer = Buffer::random(&mut rng, DType::F32, b * item + 3, false);
            buffer.slice_mut::<f32>().iter_mut().for_each(|x| *x /= 2.0);
            (buffer, layout)
        });
        let first = (0..b).map(|row| (s.saturating_sub(t) / 2 + row) as i64).collect();
        Case { extents, mask, form, first, operands }
    }

    fn at(&self, operand: usize, index: [usize; 4]) -> f64 {
        let (buffer, layout) = &self.operands[operand];
        let offset: isize = index.iter().zip(&layout.strides).map(|(&i, &s)| i as isize * s).sum();
        f64::from(buffer.slice::<f32>()[(layout.offset + offset) as usize])
    }

    fn seen(&self, row: usize, i: usize) -> usize {
        let [.., t, s, _, _] = self.extents;
        match self.mask {
            Mask::None => s,
            Mask::Causal => i + 1 + s - t,
            Mask::Cached => (self.first[row] + i as i64 + 1).clamp(0, s as i64) as usize,
        }
    }

    fn kernel(&self, dtype: DType) -> Attention {
        let [b, h, queries, keys, depth, width] = self.extents;
        let [q, k, v] = [0, 1, 2].map(|i| self.operands[i].1.clone());
        Attention { dtype, batch: SmallVec::from_slice(&[b, h]), queries, keys, depth, width, mask: self.mask, q, k, v }
    }

    fn places(&self) -> Option<Buffer> {
        (self.mask == Mask::Cached).then(|| Buffer::of(DType::I64, &self.first))
    }

    /// y with the logarithms, of operands of a dtype.
    fn forward(&self, isa: Isa, dtype: DType, operands: &[Buffer]) -> Buffer {
        let [b, h, t, .., e] = self.extents;
        let mut buffers: Vec<Buffer> = operands.to_vec();
        buffers.extend(self.places());
        buffers.push(Buffer::new(DType::F32, b * h * t * (e + 1)));
        run(&*compile(Kernel::Attention(self.kernel(dtype)), isa), &mut buffers, &[]).unwrap();
        buffers.pop().unwrap()
    }

    /// y with the logarithms, and the cotangents.
    fn run(&self, isa: Isa) -> [Vec<f32>; 2] {
        let [b, h, t, s, d, e] = self.extents;
        let inputs: Vec<Buffer> = self.operands.iter().map(|(buffer, _)| buffer.clone()).collect();
        let y = self.forward(isa, DType::F32, &inputs[..3]);
        let mut buffers: Vec<Buffer> = inputs[..3].iter().chain([&y, &inputs[3]]).cloned().collect();
        buffers.extend(self.places());
        buffers.push(Buffer::new(DType::F32, b * h * (t * d + s * d + s * e)));
        let vjp = AttentionVjp { of: self.kernel(DType::F32), cotangent: self.operands[3].1.clone() };
        run(&*compile(Kernel::AttentionVjp(vjp), isa), &mut buffers, &[]).unwrap();
        [y.slice().to_vec(), buffers.pop().unwrap().slice().to_vec()]
    }

    /// The same in f64.
    fn expected(&self) -> [Vec<f64>; 2] {
        let [b, h, t, s, d, e] = self.extents;
        let scale = 1.0 / (d.max(1) as f64).sqrt();
        let mut y = vec![0.0; b * h * t * (e + 1)];
        let mut cotangents = vec![0.0; b * h * (t * d + s * d + s * e)];
        let (of_k, of_v) = (b * h * t * d, b * h * (t + s) * d);
        let sum = |n: usize, f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();
        for (row, head, i) in (0..b * h * t).map(|n| (n / (h * t), n / t % h, n % t)) {
            let n = self.seen(row, i);
            let q = |x: usize| self.at(0, [row, head, i, x]);
            let k = |j: usize, x: usize| self.at(1, [row, head, j, x]);
            let v = |j: usize, x: usize| self.at(2, [row, head, j, x]);
            let given = |x: usize| self.at(3, [row, head, i, x]);
            let scores: Vec<f64> = (0..n).map(|j| sum(d, &|x| q(x) * k(j, x)) * scale).collect();
            let log = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
            let weights: Vec<f64> = scores.iter().map(|s| (s - log).exp()).collect();
            let place = |lines: usize, line: usize| (row * lines + line) * h + head;
            for x in 0..e {
                y[place(t, i) * e + x] = sum(n, &|j| weights[j] * v(j, x));
            }
            y[b * h * t * e + (row * h + head) * t + i] = log;
            let dot = sum(e, &|x| y[place(t, i) * e + x] * given(x));
            for (j, weight) in weights.iter().enumerate() {
                let of_score = weight * (sum(e, &|x| given(x) * v(j, x)) - dot) * scale;
                for x in 0..d {
                    cotangents[place(t, i) * d + x] += of_score * k(j, x);
                    cotangents[of_k + place(s, j) * d + x] += of_score * q(x);
                }
                (0..e).for_each(|x| cotangents[of_v + place(s, j) * e + x] += weight * given(x));
            }
        }
        [y, cotangents]
    }

    fn verify(&self) {
        let expected = self.expected();
        for isa in isas() {
            for (found, expected) in self.run(isa).iter().zip(&expected) {
                let largest = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
                for (at, (&found, expected)) in found.iter().zip(expected).enumerate() {
                    let close = (f64::from(found) - expected).abs() <= 4e-6 * largest;
                    let what = (self.extents, self.mask, self.form);
                    assert!(close, "{isa} {what:?}: {found} at {at}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn all_shapes_and_masks() {
    let shapes = [
        [1, 1, 1, 1, 1, 1],
        [2, 3, 1, 5, 17, 3],
        [2, 1, 5, 5, 64, 64],
        [3, 2, 67, 67, 16, 17],
        [1, 2, 33, 131, 80, 64],
        [2, 2, 3, 600, 16, 16],
        [4, 2, 9, 600, 8, 16],
        [1, 1, 260, 1100, 8, 24],
        [2, 2, 4, 4, 0, 3],
        [2, 2, 4, 4, 3, 0],
    ];
    for extents in shapes {
        for mask in [Mask::None, Mask::Causal, Mask::Cached] {
            // The longest are enough as they lie.
            let forms = [Form::Plain, Form::Projected, Form::Transposed];
            for form in &forms[..if extents[3] > 200 { 1 } else { 3 }] {
                Case::new(extents, mask, *form).verify();
            }
        }
    }
}

#[test]
fn half_precision_is_widened_as_it_is_read() {
    let shapes = [[2, 3, 1, 40, 64, 64], [1, 2, 67, 67, 16, 17], [1, 1, 3, 600, 35, 20], [1, 1, 260, 700, 8, 24]];
    type Conversions = (DType, fn(f32) -> u16, fn(u16) -> f32);
    let dtypes: [Conversions; 2] = [(DType::BF16, bf16_from_f32, bf16_to_f32), (DType::F16, f16_from_f32, f16_to_f32)];
    for (extents, mask) in shapes.into_iter().flat_map(|s| [Mask::None, Mask::Causal, Mask::Cached].map(|m| (s, m))) {
        for form in [Form::Plain, Form::Projected, Form::Transposed] {
            let case = Case::new(extents, mask, form);
            for (dtype, narrowed, widened) in dtypes {
                let narrow: Vec<Vec<u16>> = case.operands[..3]
                    .iter()
                    .map(|(buffer, _)| buffer.slice::<f32>().iter().map(|&x| narrowed(x)).collect())
                    .collect();
                let again = |bits: &Vec<u16>| bits.iter().map(|&x| widened(x)).collect::<Vec<f32>>();
                let wide: Vec<Buffer> = narrow.iter().map(|bits| Buffer::of(DType::F32, &again(bits))).collect();
                let narrow: Vec<Buffer> = narrow.iter().map(|bits| Buffer::of(dtype, bits)).collect();
                for isa in isas() {
                    let found = case.forward(isa, dtype, &narrow).slice::<u32>().to_vec();
                    let expected = case.forward(isa, DType::F32, &wide);
                    assert_eq!(found, expected.slice::<u32>(), "{isa} {extents:?} {mask:?} {form:?} {dtype}");
                }
            }
        }
    }
}

#[test]
fn nothing_in_nothing_out() {
    for extents in [[0, 2, 3, 3, 4, 4], [2, 0, 3, 3, 4, 4], [2, 2, 0, 3, 4, 4], [1, 1, 0, 0, 4, 4]] {
        for mask in [Mask::None, Mask::Causal, Mask::Cached] {
            Case::new(extents, mask, Form::Plain).verify();
        }
    }
    for isa in isas() {
        // No keys at all: zeros.
        let case = Case::new([2, 2, 3, 0, 4, 4], Mask::None, Form::Plain);
        let [y, cotangents] = case.run(isa);
        assert!(y[..48].iter().chain(&cotangents).all(|&x| x == 0.0));
    }
}

#[test]
fn a_query_gets_the_same_bits_alone_and_among_others() {
    let (b, h, t, s, d, e) = (2, 2, 70, 600, 24, 20);
    for isa in isas() {
        let whole = Case::new([b, h, t, s, d, e], Mask::Causal, Form::Plain);
        let [all, _] = whole.run(isa);
        for i in [0, 1, 33, 69] {
            // One query against a cache in which more lies than it sees.
            let mut one = Case::new([b, h, 1, s, d, e], Mask::Cached, Form::Plain);
            one.first = vec![(i + s - t) as i64; b];
            one.operands[1] = whole.operands[1].clone();
            one.operands[2] = whole.operands[2].clone();
            let lines = (0..b * h).flat_map(|item| (0..d).map(move |x| (item * t + i) * d + x));
            let q: Vec<f32> = lines.map(|at| whole.operands[0].0.slice::<f32>()[at]).collect();
            one.operands[0].0.slice_mut::<f32>()[..q.len()].copy_from_slice(&q);
            let [alone, _] = one.run(isa);
            for (row, head, x) in (0..b * h * e).map(|n| (n / (h * e), n / e % h, n % e)) {
                let among = all[((row * t + i) * h + head) * e + x];
                assert_eq!(alone[(row * h + head) * e + x].to_bits(), among.to_bits(), "{isa}: query {i}");
            }
        }
    }
}

#[test]
fn what_nobody_sees_is_not_read_and_who_sees_nothing_gets_nan() {
    for isa in isas() {
        let mut case = Case::new([2, 1, 3, 40, 8, 8], Mask::Cached, Form::Plain);
        case.first = vec![5, 17];
        let expected = case.run(isa);
        for operand in [1, 2] {
            for row in 0..2 {
                let behind = (case.first[row] as usize + 3) * 8..40 * 8;
                case.operands[operand].0.slice_mut::<f32>()[row * 320..][behind].fill(f32::NAN);
            }
        }
        assert_eq!(case.run(isa), expected, "{isa}");
        case.first = vec![-2, i64::MIN];
        let [y, _] = case.run(isa);
        let is_nan: Vec<bool> = y[..48].chunks(8).map(|line| line.iter().all(|x| x.is_nan())).collect();
        assert_eq!(is_nan, [true, true, false, true, true, true], "{isa}");
    }
}
