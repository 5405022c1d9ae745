//! Attention in one pass on the CPU: values and derivatives of first and second order against the composite form in
//! f64, the bits, and the memory it takes.

use tapeflow::prelude::*;
use tapeflow::{AttentionMask, Result, attention, cached_attention, grad_with, planned_bytes, set_threads};

type Attend = fn(&[Tensor]) -> Tensor;

const MASKS: [(&str, Attend); 3] = [
    ("none", |x| attention(&x[0], &x[1], &x[2])),
    ("causal", |x| causal_attention(&x[0], &x[1], &x[2])),
    ("cached", |x| {
        let (rows, keys, queries) = (x[0].shape()[0], x[1].shape()[x[1].ndim() - 2], x[0].shape()[x[0].ndim() - 2]);
        let first = (0..rows).map(|row| ((keys - queries) / 2 + row) as i64).collect::<Vec<_>>();
        cached_attention(&x[0], &x[1], &x[2], Tensor::from_vec(first, [rows]))
    }),
];

/// q, k, v, a cotangent of y and cotangents of theirs.
fn operands(batch: &[usize], [t, s, d, e]: [usize; 4]) -> Result<Vec<Tensor>> {
    let generator = Generator::new(3);
    let shape = |lines: usize, n: usize| [batch, &[lines, n]].concat();
    let shapes = [(t, d), (s, d), (s, e), (t, e), (t, d), (s, d), (s, e)].map(|(lines, n)| shape(lines, n));
    let all: Vec<Tensor> = shapes.into_iter().map(|shape| generator.randn(shape)).collect();
    Tensor::realize_all(&all.iter().collect::<Vec<_>>())?;
    Ok(all)
}

/// y, its gradients, and the gradients of these.
fn derivatives(attend: Attend, x: &[Tensor]) -> Result<Vec<Tensor>> {
    let y = attend(x);
    let wanted: Vec<&Tensor> = x[..3].iter().collect();
    let firsts = grad_with(&y, Some(&x[3]), &wanted)?;
    let inner = firsts.iter().zip(&x[4..]).map(|(first, by)| (first * by).sum()).reduce(|a, b| a + b);
    let seconds = grad(&inner.expect("three gradients"), &x[..4].iter().collect::<Vec<_>>())?;
    Ok([y].into_iter().chain(firsts).chain(seconds).collect())
}

fn compare(what: &str, found: &[Tensor], expected: &[Tensor]) -> Result<()> {
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.shape(), expected.shape(), "{what}: result {number}");
        let (found, expected) = (found.to_vec::<f32>()?, expected.to_vec::<f64>()?);
        let largest = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
        for (at, (&a, &b)) in found.iter().zip(&expected).enumerate() {
            assert!((f64::from(a) - b).abs() <= 1e-5 * largest, "{what}: result {number} is {a} at {at}, not {b}");
        }
    }
    Ok(())
}

#[test]
fn derivatives_of_both_orders_are_those_of_the_composite_form() -> Result<()> {
    let cases: [(&[usize], [usize; 4]); 6] = [
        (&[2], [1, 1, 1, 1]),
        (&[2, 3], [5, 5, 16, 16]),
        (&[1, 2], [9, 21, 17, 3]),
        (&[2, 1, 2], [4, 6, 8, 5]),
        (&[2], [67, 67, 20, 20]),
        (&[2, 2], [3, 3, 64, 80]),
    ];
    for (batch, extents) in cases {
        let x = operands(batch, extents)?;
        let wide: Vec<Tensor> = x.iter().map(|x| x.cast(DType::F64)).collect();
        for (mask, attend) in MASKS {
            let what = format!("{mask} {batch:?} {extents:?}");
            compare(&what, &derivatives(attend, &x)?, &derivatives(attend, &wide)?)?;
        }
    }
    // No batch at all.
    let x = operands(&[], [7, 7, 12, 4])?;
    let wide: Vec<Tensor> = x.iter().map(|x| x.cast(DType::F64)).collect();
    for (mask, attend) in &MASKS[..2] {
        compare(mask, &derivatives(*attend, &x)?, &derivatives(*attend, &wide)?)?;
    }
    Ok(())
}

/// Attention of one projection `(B, T, 3C)`, as models have it.
fn projected(qkv: &Tensor, heads: usize) -> Tensor {
    let [b, t, c3] = qkv.dims();
    let (c, size) = (c3 / 3, c3 / 3 / heads);
    let [q, k, v] = qkv.chunk(2).map(|x: Tensor| x.reshape([b, t, heads, size]).transpose(1, 2));
    causal_attention(q, k, v).transpose(1, 2).reshape([b, t, c])
}

#[test]
fn operands_are_read_as_they_lie() -> Result<()> {
    let generator = Generator::new(5);
    for (b, t, heads, size) in [(2, 33, 3, 16), (1, 70, 2, 20)] {
        let qkv = generator.randn([b, t, 3 * heads * size]);
        let by = generator.randn([b, t, heads * size]);
        Tensor::realize_all(&[&qkv, &by])?;
        let both = |qkv: &Tensor, by: &Tensor| -> Result<Vec<Tensor>> {
            let y = projected(qkv, heads);
            let mut all = grad_with(&y, Some(by), &[qkv])?;
            all.push(y);
            Ok(all)
        };
        let wide = both(&qkv.cast(DType::F64), &by.cast(DType::F64))?;
        compare("projected", &both(&qkv, &by)?, &wide)?;
        // Turned around, and one set of keys for all heads.
        let [q, k] = [(); 2].map(|()| generator.randn([b, size, t]));
        let v = generator.randn([t, size]);
        Tensor::realize_all(&[&q, &k, &v])?;
        let turned = |q: &Tensor, k: &Tensor, v: &Tensor| -> Result<Vec<Tensor>> {
            let y = causal_attention(q.t().flip([0]), k.t(), v);
            Ok(grad(&y.square().sum(), &[q, k, v])?.into_iter().chain([y]).collect())
        };
        let wide = [&q, &k, &v].map(|x| x.cast(DType::F64));
        compare("turned", &turned(&q, &k, &v)?, &turned(&wide[0], &wide[1], &wide[2])?)?;
    }
    Ok(())
}

#[test]
fn the_bits_do_not_depend_on_threads_nor_on_what_is_read_before() -> Result<()> {
    let x = operands(&[3, 2], [150, 600, 24, 40])?;
    let bits = |y_first: bool| -> Result<Vec<Vec<u32>>> {
        let y = causal_attention(&x[0], &x[1], &x[2]);
        let mut all = grad_with(&y, Some(&x[3]), &[&x[0], &x[1], &x[2]])?;
        if y_first {
            y.realize()?;
        }
        all.push(y);
        all.iter().map(|x| Ok(x.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())).collect()
    };
    let expected = bits(false)?;
    for threads in [1, 3, 8, 2] {
        set_threads(threads)?;
        assert!(bits(false)? == expected, "{threads} threads");
    }
    assert!(bits(true)? == expected, "with the result read first");
    Ok(())
}

#[test]
fn no_matrix_of_weights_lies_in_memory() -> Result<()> {
    let (b, t, heads, size) = (2, 512, 4, 16);
    let generator = Generator::new(1);
    let qkv = generator.randn([b, t, 3 * heads * size]);
    qkv.realize()?;
    let (y, weights) = (projected(&qkv, heads), 4 * b * heads * t * t);
    let line = 4 * b * t * heads * size;
    let logs = 4 * b * heads * t;
    assert!(planned_bytes(&[&y])? <= 2 * line + logs, "{}", planned_bytes(&[&y])?);
    let gradients = grad(&y.square().sum(), &[&qkv])?;
    let planned = planned_bytes(&[&gradients[0]])?;
    // The result, its cotangent, three cotangents and where they are put together.
    assert!(planned <= 9 * line + logs && planned < weights / 3, "{planned} bytes, {line} a line");
    Ok(())
}

#[test]
fn a_layer_of_heads_keeps_no_matrix_of_weights_that_nobody_asked_for() -> Result<()> {
    let (t, width) = (256, 16);
    let generator = Generator::new(5);
    let layer = MultiheadAttention::drawn(width, 2, &generator)?;
    let x = generator.randn([1, t, width]);
    x.realize()?;
    for mask in [AttentionMask::new(), AttentionMask::new().causal()] {
        // A mask that hides nothing, and takes the way with weights.
        let nothing = Tensor::zeros([t, t], DType::F32);
        let (y, _) = layer.attend(&x, &x, &x, &mask);
        let (spelled, weights) = layer.attend(&x, &x, &x, &mask.clone().places(&nothing));
        let matrix = weights.numel() * size_of::<f32>();
        let planned = planned_bytes(&[&y])?;
        assert!(planned < matrix / 2 && planned_bytes(&[&spelled])? > matrix, "{planned} bytes");
        let (found, expected) = (y.to_vec::<f32>()?, spelled.to_vec::<f32>()?);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{mask:?}");
    }
    Ok(())
}

#[test]
fn half_precision_is_computed_in_f32_and_rounded_once() -> Result<()> {
    let x = operands(&[2, 2], [20, 30, 16, 16])?;
    for ((name, attend), dtype) in MASKS.into_iter().flat_map(|mask| [(mask, DType::F16), (mask, DType::BF16)]) {
        let narrow: Vec<Tensor> = x[..4].iter().map(|x| x.cast(dtype)).collect();
        Tensor::realize_all(&narrow.iter().collect::<Vec<_>>())?;
        let wide: Vec<Tensor> = narrow.iter().map(|x| x.cast(DType::F32)).collect();
        let (found, expected) = (attend(&narrow), attend(&wide));
        let gradients = |y: &Tensor, x: &[Tensor]| grad_with(y, Some(&x[3]), &x[..3].iter().collect::<Vec<_>>());
        let found: Vec<Tensor> = [vec![found.clone()], gradients(&found, &narrow)?].concat();
        let expected: Vec<Tensor> = [vec![expected.clone()], gradients(&expected, &wide)?].concat();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.dtype(), dtype, "{name}");
            let expected = expected.cast(dtype).cast(DType::F32).to_vec::<f32>()?;
            assert_eq!(found.cast(DType::F32).to_vec::<f32>()?, expected, "{name} {dtype}");
        }
    }
    Ok(())
}
