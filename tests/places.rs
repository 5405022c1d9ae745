//! Where the values of a program lie, and which of its kernels come first.

use tapeflow::prelude::*;
use tapeflow::{__test::dumped, Result, grad, planned_bytes};

const SIDE: usize = 256;

fn matrix(seed: usize) -> Tensor {
    let element = |i: usize| ((i * 7 + seed * 31) % 23) as f32 * 0.02 - 0.2;
    Tensor::from_vec((0..SIDE * SIDE).map(element).collect(), [SIDE, SIDE])
}

fn bits(x: &Tensor) -> Result<Vec<u32>> {
    Ok(x.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
}

/// A product, what is made of it element by element after a step that reads all of it, and a product of that.
#[test]
fn what_is_read_last_lends_its_memory() -> Result<()> {
    let (x, w) = (matrix(1), matrix(2));
    let computed = |product: &Tensor| (product - product.sum_dim([0], true)).exp().matmul(&w);
    let y = computed(&x.matmul(&w));
    let one = y.numel() * size_of::<f32>();
    let planned = planned_bytes(&[&y])?;
    assert!(planned < 2 * one + one / 2, "{planned} bytes for matrices of {one}");
    let found = bits(&y)?;
    let kept = x.matmul(&w);
    kept.realize()?;
    assert!(found == bits(&computed(&kept))?, "other bits where the product is kept");
    Ok(())
}

/// Half of a product in f16 is as many bytes as what it becomes in f32, but not the same elements at the same places.
#[test]
fn elements_of_another_size_lie_elsewhere() -> Result<()> {
    let (x, w) = (matrix(3).cast(DType::F16), matrix(4).cast(DType::F16));
    Tensor::realize_all(&[&x, &w])?;
    let wide = matrix(5);
    let computed = |product: &Tensor| {
        let [half, _] = product.chunk(0);
        let half = half.cast(DType::F32);
        (&half - half.sum_dim([0], true)).exp().matmul(&wide)
    };
    let y = computed(&x.matmul(&w));
    let found = bits(&y)?;
    let kept = x.matmul(&w);
    kept.realize()?;
    assert!(found == bits(&computed(&kept))?, "other bits where the product is kept");
    Ok(())
}

/// Backward goes on with the image's gradient; the kernel's is only wanted at the end.
#[test]
fn of_a_convolutions_gradients_the_images_comes_first() -> Result<()> {
    let generator = Generator::new(3);
    let options = ConvOptions::new().padding(1);
    let [first, second] = [[4, 3, 3, 3], [4, 4, 3, 3]].map(|shape| generator.randn(shape));
    let x = generator.randn([2, 3, 8, 8]);
    Tensor::realize_all(&[&x, &first, &second])?;
    let (first, second) = (first.with_grad()?, second.with_grad()?);
    let hidden = x.conv2d(&first, &options).tanh();
    let loss = hidden.conv2d(&second, &options).tanh().sum();
    let updated = {
        let gradients = grad(&loss, &[&first, &second])?;
        [&first - &gradients[0] * 0.1, &second - &gradients[1] * 0.1]
    };
    let (done, dump) = dumped(|| Tensor::realize_all(&[&updated[0], &updated[1]]));
    done?;
    let fused = &dump[dump.find("== fuse").unwrap()..dump.find("== plan").unwrap()];
    let of = |what: &str| fused.lines().position(|line| line.ends_with(what)).unwrap_or_else(|| panic!("{fused}"));
    assert!(of("reversed, framed") < of("kernel, framed"), "{fused}");
    Ok(())
}
