//! Where a mistake is said to be, which one comes out first, and what follows from it.

use super::*;

#[test]
fn an_error_names_the_line_of_the_call_and_the_path_of_the_module() {
    let line = line!() + 1;
    let error = (f32s(&[2, 3]) + f32s(&[4])).realize().unwrap_err();
    assert_eq!((error.location().file(), error.location().line()), (file!(), line));
    assert_eq!(error.module_path(), "");

    let model = outer();
    model.h[1].fc.weight.slot().replace(&f32s(&[3, 9])).unwrap();
    let error = model.forward(&f32s(&[2, 3])).realize().unwrap_err();
    assert_eq!(error.module_path(), "h.1.fc");
    assert_eq!(error.op(), "matmul");

    // A failure of the run names the operation that failed, in the module it was recorded in.
    let embedding = tapeflow::Embedding::new(3, 2).unwrap();
    let index = Tensor::from_vec(vec![5i64], [1]);
    let line = line!() + 1;
    let looked_up = embedding.forward(&index) * 2.0;
    let error = looked_up.sum().backward().and_then(|g| g.get(&embedding.weight).unwrap().realize()).unwrap_err();
    assert_eq!((error.op(), error.location().line()), ("index_select", line), "{error}");
}

#[test]
fn the_first_mistake_in_the_order_of_recording_comes_out() {
    let a = f32s(&[2]).reshape([3]);
    let b = f32s(&[2, 3]) + f32s(&[4]);
    // However they are combined, and through whatever follows.
    for t in [&b + &a, (&a + &b).exp().sum(), Tensor::cat(&[&b, &a], 0)] {
        assert!(matches!(t.realize().unwrap_err().problem(), Problem::Reshape { .. }));
    }
    // Looking at it does not use it up.
    assert!(matches!(a.realize().unwrap_err().problem(), Problem::Reshape { .. }));
    assert!(format!("{a}").contains("reshape"));
}

#[test]
fn a_mistake_never_makes_what_follows_panic() {
    let wrong = f32s(&[2, 3]).matmul(&f32s(&[2, 3]));
    // The rank of what is wrong anyway is no second mistake; a wrong rank of what is right comes out at the next read.
    let [n] = wrong.dims();
    assert_eq!(n, 1);
    f32s(&[1]).realize().unwrap();
    let [_] = f32s(&[1, 1]).dims();
    assert!(matches!(f32s(&[1]).realize().unwrap_err().problem(), Problem::Rank { .. }));
    f32s(&[1]).realize().unwrap();
    let follow = wrong.softmax(-1).sum_dim([5], false).t().reshape([7, 7]).slice(0, 3..).causal_like();
    assert!(follow.realize().is_err());
    assert!(wrong.backward().is_err() && grad(&wrong, &[&wrong]).is_err());
    assert!(Parameter::new(wrong).is_err());
}

trait CausalLike {
    fn causal_like(&self) -> Tensor;
}

impl CausalLike for Tensor {
    fn causal_like(&self) -> Tensor {
        causal_attention(self, self, self)
    }
}
