//! What recurrent networks have in common: layers in one or both directions, their weights under PyTorch's names, the
//! projection of all inputs at once, and the way of the states. Knows no cell.

use tapeflow_core::{Generator, Parameter, Tensor, scan};

use crate::error::Result;
use crate::init;
use crate::layers::Dropout;
use crate::module::{Forward, Visitor};

/// The sizes of a stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub inputs: usize,
    pub hidden: usize,
    pub layers: usize,
    pub bidirectional: bool,
    /// Rows of a weight per hidden value.
    pub gates: usize,
}

/// One direction of one layer.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    /// `(gates · hidden, inputs)`
    pub weight_ih: Parameter,
    /// `(gates · hidden, hidden)`
    pub weight_hh: Parameter,
    /// `(gates · hidden,)` each.
    pub biases: Option<[Parameter; 2]>,
}

/// The layers.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    layers: Vec<Vec<Direction>>,
    /// Values of an input, and of a state.
    inputs: usize,
    hidden: usize,
    /// Between layers.
    pub dropout: Dropout,
}

impl Direction {
    fn drawn(inputs: usize, hidden: usize, gates: usize, generator: &Generator) -> Result<Direction> {
        let bound = 1.0 / (hidden.max(1) as f64).sqrt();
        let rows = gates * hidden;
        let uniform = |shape: Vec<usize>| Parameter::new(init::uniform(shape, -bound, bound, generator));
        Ok(Direction {
            weight_ih: uniform(vec![rows, inputs])?,
            weight_hh: uniform(vec![rows, hidden])?,
            biases: Some([uniform(vec![rows])?, uniform(vec![rows])?]),
        })
    }

    /// `h Wᵀ + b`, the share of a state in the gates; the bias only if `biased`.
    pub fn of_state(&self, h: &Tensor, biased: bool) -> Tensor {
        let y = h.matmul(&self.weight_hh.tensor().t());
        match &self.biases {
            Some([_, bias]) if biased => y + bias.tensor(),
            _ => y,
        }
    }

    /// The share of all inputs, and of the biases that do not depend on the state.
    fn of_inputs(&self, x: &Tensor, all_biases: bool) -> Tensor {
        let y = x.matmul(&self.weight_ih.tensor().t());
        match &self.biases {
            Some([ih, hh]) if all_biases => y + (ih.tensor() + hh.tensor()),
            Some([ih, _]) => y + ih.tensor(),
            None => y,
        }
    }
}

/// A step of a cell: from the share of the input and the states to the next states, the output first.
pub(super) type Step<'s> = &'s dyn Fn(&Direction, &Tensor, &[Tensor]) -> Vec<Tensor>;

impl Stack {
    pub fn drawn(sizes: Sizes, generator: &Generator) -> Result<Stack> {
        let Sizes { inputs, hidden, layers, bidirectional, gates } = sizes;
        let directions = if bidirectional { 2 } else { 1 };
        let layer = |index: usize| {
            let inputs = if index == 0 { inputs } else { hidden * directions };
            (0..directions).map(|_| Direction::drawn(inputs, hidden, gates, generator)).collect()
        };
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(Stack { layers, inputs, hidden, dropout: Dropout::new(0.0) })
    }

    pub fn bias(&mut self, wanted: bool) {
        for direction in self.layers.iter_mut().flatten() {
            direction.biases = direction.biases.take().filter(|_| wanted);
        }
    }

    /// PyTorch's names: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, `weight_ih_l0_reverse`, …
    pub fn visit(&self, visitor: &mut dyn Visitor) {
        for (index, layer) in self.layers.iter().enumerate() {
            for (direction, suffix) in layer.iter().zip(["", "_reverse"]) {
                let mut show = |name: &str, parameter: &Parameter| {
                    visitor.enter(&format!("{name}_l{index}{suffix}"));
                    visitor.parameter(parameter);
                    visitor.leave();
                };
                show("weight_ih", &direction.weight_ih);
                show("weight_hh", &direction.weight_hh);
                if let Some([ih, hh]) = &direction.biases {
                    show("bias_ih", ih);
                    show("bias_hh", hh);
                }
            }
        }
    }

    /// Runs all layers on `x: (B, T, inputs)`: the output `(B, T, D · hidden)` and the last states, each
    /// `(layers · D, B, hidden)`. `initial`: as many states of this shape, or none for zeros. `all_biases`: the state's
    /// bias is no different from the input's.
    #[track_caller]
    pub fn run(
        &self,
        name: &'static str,
        x: &Tensor,
        initial: &[&Tensor],
        states: usize,
        all_biases: bool,
        step: Step<'_>,
    ) -> (Tensor, Vec<Tensor>) {
        let (rows, [batch, time]) =
            (self.layers.iter().flatten().count(), [0, 1].map(|a| *x.shape().get(a).unwrap_or(&1)));
        let of_state = [rows, batch, self.hidden];
        let wrong = if x.ndim() != 3 || x.shape()[2] != self.inputs {
            Some(format!("inputs (items, time, {}) are needed", self.inputs))
        } else if initial.iter().any(|s| s.shape()[..] != of_state) {
            Some(format!("states {of_state:?}, that is (layers · directions, items, hidden), are needed"))
        } else {
            None
        };
        if let Some(wanted) = wrong {
            let all: Vec<&Tensor> = [x].into_iter().chain(initial.iter().copied()).collect();
            let refused = || Tensor::refuse(name, &all, wanted.clone());
            return (refused(), (0..states).map(|_| refused()).collect());
        }
        let mut x = x.transpose(0, 1); // (T, B, I)
        let mut finals: Vec<Vec<Tensor>> = vec![Vec::with_capacity(rows); states];
        let mut row = 0;
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                x = self.dropout.forward(&x);
            }
            let mut outputs = Vec::with_capacity(layer.len());
            for (direction, backwards) in layer.iter().zip([false, true]) {
                let first: Vec<Tensor> = match initial {
                    [] => (0..states).map(|_| Tensor::zeros([batch, self.hidden], x.dtype()).to(x.device())).collect(),
                    given => given.iter().map(|s| s.narrow(0, row, 1).squeeze(0)).collect(),
                };
                row += 1;
                let (last, y) = direction.run(&x, &first, backwards, all_biases, step);
                finals.iter_mut().zip(last).for_each(|(all, s)| all.push(s));
                outputs.push(y);
            }
            x = match &outputs[..] {
                [one] => one.clone(),
                both => Tensor::cat(both, -1),
            };
        }
        debug_assert_eq!(x.shape()[0], time);
        (x.transpose(0, 1), finals.into_iter().map(|all| Tensor::stack(&all, 0)).collect())
    }
}

impl Direction {
    /// `x: (T, B, I)`: the last states, and the outputs `(T, B, H)`.
    #[track_caller]
    fn run(
        &self,
        x: &Tensor,
        first: &[Tensor],
        backwards: bool,
        all_biases: bool,
        step: Step<'_>,
    ) -> (Vec<Tensor>, Tensor) {
        let turned = |x: Tensor| if backwards { x.flip([0]) } else { x };
        let shares = turned(self.of_inputs(x, all_biases)); // (T, B, G · H): one product for all steps
        let first: Vec<&Tensor> = first.iter().collect();
        let (last, mut outputs) = scan(&first, &[&shares], |states, x| {
            let next = step(self, &x[0], states);
            let output = next[0].clone();
            (next, vec![output])
        });
        (last, turned(outputs.swap_remove(0)))
    }
}

/// Part `index` of `x: (B, n · width)`, `width` wide.
pub(super) fn part(x: &Tensor, index: usize, width: usize) -> Tensor {
    x.slice(-1, index * width..(index + 1) * width)
}
