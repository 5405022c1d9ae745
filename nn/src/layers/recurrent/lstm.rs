//! Long short-term memory. Hochreiter & Schmidhuber 1997; with forget gates, Gers, Schmidhuber & Cummins 2000.

use tapeflow_core::Tensor;
use tapeflow_macros::kernel;

use super::recurrent;
use super::stack::{Stack, part};

/// A recurrent network with cells that keep a state of their own. PyTorch's `LSTM`, batch first.
///
/// # Shapes
/// `x: (B, T, inputs)` → `(B, T, D · hidden)`, states h and c `(layers · D, B, hidden)`; D is 2 if bidirectional,
/// else 1
/// # Formula
/// `i, f, g, o = x Wᵢᵀ + bᵢ + h Wₕᵀ + bₕ`, `c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)`, `h' = σ(o) ⊙ tanh(c')`, the gates in this
/// order in the weights. Hochreiter & Schmidhuber 1997.
///
/// ```
/// use tapeflow_nn::{Dropout, Generator, Lstm, ModuleExt};
/// let generator = Generator::new(1);
/// let lstm = Lstm::drawn(3, 4, 2, false, &generator)?.dropout(Dropout::new(0.1).generator(&generator));
/// let (y, (h, c)) = lstm.run(&generator.randn([5, 7, 3]), None);
/// assert_eq!((y.dims(), h.dims(), c.dims()), ([5, 7, 4], [2, 5, 4], [2, 5, 4]));
/// let loss = y.square().mean() + c.sum();
/// assert_eq!(loss.backward()?.len(), lstm.parameters().len());
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lstm {
    stack: Stack,
}

/// σ, in a form that cannot overflow.
#[kernel]
pub(super) fn logistic(x: f32) -> f32 {
    0.5 + 0.5 * (0.5 * x).tanh()
}

/// The next h and c.
#[kernel]
fn next_states(i: f32, f: f32, g: f32, o: f32, c: f32) -> (f32, f32) {
    let c = logistic(f) * c + logistic(i) * g.tanh();
    (logistic(o) * c.tanh(), c)
}

recurrent!(Lstm, 4);

impl Lstm {
    fn of(stack: Stack) -> Lstm {
        Lstm { stack }
    }

    /// The outputs, and the last states h and c, from initial ones (zeros if `None`).
    ///
    /// # Errors
    /// Inputs or states of another shape.
    #[track_caller]
    pub fn run(&self, x: &Tensor, initial: Option<(&Tensor, &Tensor)>) -> (Tensor, (Tensor, Tensor)) {
        let initial = initial.map_or(Vec::new(), |(h, c)| vec![h, c]);
        let (y, mut last) = self.stack.run("Lstm", x, &initial, 2, true, &|direction, x, states| {
            let (h, c) = (&states[0], &states[1]);
            let shares = x + direction.of_state(h, false);
            let width = *c.shape().last().unwrap_or(&1);
            let [i, f, g, o] = [0, 1, 2, 3].map(|gate| part(&shares, gate, width));
            let (h, c) = next_states::map(&i, &f, &g, &o, c);
            vec![h, c]
        });
        let c = last.swap_remove(1);
        (y, (last.swap_remove(0), c))
    }
}
