//! The gated recurrent unit. Cho et al. 2014, arXiv:1406.1078.

use tapeflow_core::Tensor;
use tapeflow_macros::kernel;

use super::lstm::logistic;
use super::recurrent;
use super::stack::{Stack, part};

/// A recurrent network of gated units. PyTorch's `GRU`, batch first.
///
/// # Shapes
/// `x: (B, T, inputs)` → `(B, T, D · hidden)`, states `(layers · D, B, hidden)`; D is 2 if bidirectional, else 1
/// # Formula
/// `r, z = σ(x Wᵢᵀ + bᵢ + h Wₕᵀ + bₕ)`, `n = tanh(x Wᵢₙᵀ + bᵢₙ + r ⊙ (h Wₕₙᵀ + bₕₙ))`, `h' = (1 − z) ⊙ n + z ⊙ h`, the
/// gates in this order in the weights. Cho et al. 2014, arXiv:1406.1078, with the reset after the product.
///
/// ```
/// use tapeflow_nn::{Generator, Gru};
/// let generator = Generator::new(1);
/// let gru = Gru::drawn(3, 4, 1, false, &generator)?;
/// let x = generator.randn([2, 6, 3]);
/// let (whole, _) = gru.run(&x, None);
/// // The state carries over: two halves are the whole.
/// let (_, state) = gru.run(&x.slice(1, 0..3), None);
/// let (second, _) = gru.run(&x.slice(1, 3..6), Some(&state));
/// assert_eq!(whole.slice(1, 3..6).to_vec::<f32>()?, second.to_vec::<f32>()?);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gru {
    stack: Stack,
}

#[kernel]
fn next_state(xr: f32, xz: f32, xn: f32, hr: f32, hz: f32, hn: f32, h: f32) -> f32 {
    let (r, z) = (logistic(xr + hr), logistic(xz + hz));
    let n = (xn + r * hn).tanh();
    (1.0 - z) * n + z * h
}

recurrent!(Gru, 3);

impl Gru {
    fn of(stack: Stack) -> Gru {
        Gru { stack }
    }

    /// The outputs, and the last state, from an initial state (zeros if `None`).
    ///
    /// # Errors
    /// Inputs or a state of another shape.
    #[track_caller]
    pub fn run(&self, x: &Tensor, initial: Option<&Tensor>) -> (Tensor, Tensor) {
        let initial: Vec<&Tensor> = initial.into_iter().collect();
        let (y, mut last) = self.stack.run("Gru", x, &initial, 1, false, &|direction, x, states| {
            let (h, shares) = (&states[0], direction.of_state(&states[0], true));
            let width = *h.shape().last().unwrap_or(&1);
            let [xr, xz, xn] = [0, 1, 2].map(|gate| part(x, gate, width));
            let [hr, hz, hn] = [0, 1, 2].map(|gate| part(&shares, gate, width));
            vec![next_state::map(&xr, &xz, &xn, &hr, &hz, &hn, h)]
        });
        (y, last.swap_remove(0))
    }
}
