//! Lists, options, boxes and tuples of modules are modules. Elements are named by their index, `0`, `1`, …; options and
//! boxes add no name. Where every element maps a tensor to a tensor, so does the list: one after the other.

use std::sync::{Arc, Mutex, PoisonError};

use tapeflow_core::__macro::scope;
use tapeflow_core::Tensor;

use super::{Forward, Module, Visitor};

/// The index as a name that lives as long as the program; at most one per index is ever made.
fn index_name(index: usize) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    while names.len() <= index {
        let name = names.len().to_string();
        names.push(Box::leak(name.into_boxed_str()));
    }
    names[index]
}

fn visit_list<M: Module>(list: &[M], visitor: &mut dyn Visitor) {
    for (index, module) in list.iter().enumerate() {
        visitor.enter(index_name(index));
        module.visit(visitor);
        visitor.leave();
    }
}

fn forward_list<F: Forward>(list: &[F], x: &Tensor) -> Tensor {
    list.iter().enumerate().fold(x.clone(), |x, (index, layer)| {
        let _scope = scope(index_name(index));
        layer.forward(&x)
    })
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visit_list(self, visitor);
    }
}

impl<F: Forward> Forward for Vec<F> {
    fn forward(&self, x: &Tensor) -> Tensor {
        forward_list(self, x)
    }
}

impl<M: Module, const N: usize> Module for [M; N] {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visit_list(self, visitor);
    }
}

impl<F: Forward, const N: usize> Forward for [F; N] {
    fn forward(&self, x: &Tensor) -> Tensor {
        forward_list(self, x)
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        if let Some(module) = self {
            module.visit(visitor);
        }
    }
}

/// `None` is the identity.
impl<F: Forward> Forward for Option<F> {
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Some(layer) => layer.forward(x),
            None => x.clone(),
        }
    }
}

macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        impl<M: Module + ?Sized> Module for $pointer<M> {
            fn visit(&self, visitor: &mut dyn Visitor) {
                (**self).visit(visitor);
            }
        }

        impl<F: Forward + ?Sized> Forward for $pointer<F> {
            fn forward(&self, x: &Tensor) -> Tensor {
                (**self).forward(x)
            }
        }
    )*};
}

pointers!(Box, Arc);

macro_rules! tuples {
    ($(($($module:ident $index:tt),+))*) => {$(
        impl<$($module: Module),+> Module for ($($module,)+) {
            fn visit(&self, visitor: &mut dyn Visitor) {
                $(
                    visitor.enter(stringify!($index));
                    self.$index.visit(visitor);
                    visitor.leave();
                )+
            }
        }

        impl<$($module: Forward),+> Forward for ($($module,)+) {
            fn forward(&self, x: &Tensor) -> Tensor {
                let x = x.clone();
                $(
                    let x = {
                        let _scope = scope(stringify!($index));
                        self.$index.forward(&x)
                    };
                )+
                x
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11)
}
