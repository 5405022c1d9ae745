//! The graph as text for Graphviz.
//! Owns the drawing; reads the graph only.

use std::collections::HashMap;
use std::fmt::Write;

use super::value::Value;
use crate::dot::field;

impl Value {
    /// The history of this number in Graphviz's language: a box per number with its name, operation, data and gradient,
    /// and arrows from operands to results. `dot -Tsvg` draws it.
    ///
    /// ```
    /// use tapeflow_core::scalar::Value;
    ///
    /// let (x, y) = (Value::new(2.0).named("x"), Value::new(3.0).named("y"));
    /// let z = (&x * &y).named("z");
    /// z.backward();
    /// assert_eq!(
    ///     z.to_dot(),
    ///     r#"digraph {
    ///   rankdir=LR; node [shape=record];
    ///   v0 [label="{ x | data 2.0000 | grad 3.0000 }"];
    ///   v1 [label="{ y | data 3.0000 | grad 2.0000 }"];
    ///   v2 [label="{ z | * | data 6.0000 | grad 1.0000 }"];
    ///   v0 -> v2;
    ///   v1 -> v2;
    /// }
    /// "#
    /// );
    /// ```
    pub fn to_dot(&self) -> String {
        let history = self.history();
        let numbers: HashMap<u64, usize> = history.iter().enumerate().map(|(n, value)| (value.node().id, n)).collect();
        let mut text = String::from("digraph {\n  rankdir=LR; node [shape=record];\n");
        for (number, value) in history.iter().enumerate() {
            let name = value.node().name.borrow().as_deref().map(field).unwrap_or_default();
            let numbers = [format!("data {:.4}", value.data()), format!("grad {:.4}", value.grad())];
            let fields = [name, value.node().op.symbol()].into_iter().filter(|field| !field.is_empty());
            let label = fields.chain(numbers).collect::<Vec<_>>().join(" | ");
            // Writing into a String cannot fail.
            let _ = writeln!(text, "  v{number} [label=\"{{ {label} }}\"];");
        }
        for (number, value) in history.iter().enumerate() {
            for edge in &value.node().operands {
                let _ = writeln!(text, "  v{} -> v{number};", numbers[&edge.operand.node().id]);
            }
        }
        text.push_str("}\n");
        text
    }
}
