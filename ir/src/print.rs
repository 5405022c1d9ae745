//! The stable text of functions, one value a line: what dumps, snapshots and error messages show.

use crate::{Const, DType, Extent, Op, ScalarFn, Type, V};
use std::fmt;

impl fmt::Display for V {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Extent::Row => "row",
            Extent::Lane => "lane",
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dtype, self.extent)
    }
}

/// Commas between, brackets around.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: impl IntoIterator<Item = T>) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
    }
    Ok(())
}

/// A line of signature, then one line per value, then the outputs:
///
/// ```text
/// fn(f32 lane, f32 row)
/// %0: f32 lane = input 0
/// %1: f32 row = input 1
/// %2: f32 lane = mul %0, %1
/// return %2
/// ```
impl fmt::Display for ScalarFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fn(")?;
        list(f, &self.inputs)?;
        f.write_str(")\n")?;
        for (index, (op, ty)) in self.values.iter().enumerate() {
            write!(f, "%{index}: {ty} = {}", op.name())?;
            match *op {
                Op::Input(parameter) => write!(f, " {parameter}")?,
                Op::Const(Const::Bool(value)) => write!(f, " {value}")?,
                Op::Const(Const::Int(value)) => write!(f, " {value}")?,
                // `{:?}` is the shortest text that reads back as the same bits of that dtype.
                Op::Const(Const::Float(bits)) if ty.dtype == DType::F32 => {
                    write!(f, " {:?}", f64::from_bits(bits) as f32)?;
                }
                Op::Const(Const::Float(bits)) => write!(f, " {:?}", f64::from_bits(bits))?,
                _ if op.operands().next().is_some() => {
                    f.write_str(" ")?;
                    list(f, op.operands())?;
                }
                _ => {}
            }
            f.write_str("\n")?;
        }
        f.write_str("return")?;
        if !self.outputs.is_empty() {
            f.write_str(" ")?;
        }
        list(f, &self.outputs)
    }
}
