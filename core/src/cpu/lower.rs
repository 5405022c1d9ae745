//! Lowering a group's function to steps over tiles. Owns the choice of primitives, of what is computed how often, and
//! of registers; knows nothing of chunks and of running.
//!
//! Every value has a [`Class`], how often it occurs: once, once per tile, once per row, once per element. An operation
//! runs at the highest class of its operands; operands of lower classes are splats, or are spread where no primitive
//! takes them.

use tapeflow_ir::{Const, DType, Op, Reduce, ScalarFn, V};

use super::CompileError;
use super::code;
use super::cost::cost;
use super::fold::Folds;
use super::isa::Isa;
use super::step::{Class, Lowered, Meaning, Place, Read, Register, Shape, Slot, Step, Write};
use super::table;
use super::vector::Primitive;

/// What `lower` must know of a group besides its function.
pub struct Context<'a> {
    /// For which instruction set.
    pub isa: Isa,
    /// The function.
    pub function: &'a ScalarFn,
    /// The class of each parameter and how it is read.
    pub inputs: &'a [(Class, Read)],
    /// How each output takes its value.
    pub outputs: &'a [Write],
    /// The extent of a row.
    pub length: usize,
    /// Whether tiles consist of whole rows.
    pub by_row: bool,
    /// Whether a tile has one row: then a splat need not step.
    pub single_row: bool,
    /// Of each output, how it is folded if its columns are those of a row.
    pub columns: &'a [Option<Reduce>],
    /// Of each output, whether it is so large that caches keep little of it.
    pub large: &'a [bool],
}

/// Lowers a function.
///
/// # Errors
/// [`CompileError::Undefined`] for an operation that does not exist for its dtype.
pub fn lower(context: &Context<'_>, folds: &dyn Fn(Reduce, DType) -> Option<Folds>) -> Result<Lowered, CompileError> {
    let mut lowering = Lowering {
        context,
        values: vec![None; context.function.values.len()],
        out: Lowered { places: vec![], registers: vec![], prologue: vec![], body: vec![], codes: vec![], cost: 0.0 },
    };
    let needed = needed(context.function);
    for (index, &needed) in needed.iter().enumerate() {
        if needed {
            lowering.value(V(index as u32), folds)?;
        }
    }
    lowering.finish()?;
    let mut out = lowering.out;
    code::fuse(&mut out, context)?;
    out.assign_registers();
    Ok(out)
}

/// Which values the outputs depend on.
fn needed(function: &ScalarFn) -> Vec<bool> {
    let mut needed = vec![false; function.values.len()];
    function.outputs.iter().for_each(|v| needed[v.0 as usize] = true);
    for index in (0..needed.len()).rev() {
        if needed[index] {
            operands(function.values[index].0).into_iter().flatten().for_each(|v| needed[v.0 as usize] = true);
        }
    }
    needed
}

fn operands(op: Op) -> [Option<V>; 3] {
    match op {
        Op::Input(_) | Op::Const(_) | Op::Length => [None; 3],
        Op::Unary(_, a) | Op::Cast(a) | Op::Reduce(_, a) | Op::Detach(a) => [Some(a), None, None],
        Op::Binary(_, a, b) | Op::Compare(_, a, b) => [Some(a), Some(b), None],
        Op::Select(a, b, c) | Op::MulAdd(a, b, c) => [Some(a), Some(b), Some(c)],
    }
}

#[derive(Clone, Copy, Debug)]
struct Value {
    slot: Slot,
    class: Class,
    /// Of `class` Lane: itself or its spread copy, once made.
    lanes: Option<Slot>,
    dtype: DType,
    /// Whether a step writes it, so that the step could write it elsewhere.
    computed: bool,
}

struct Lowering<'a> {
    context: &'a Context<'a>,
    values: Vec<Option<Value>>,
    out: Lowered,
}

impl Lowering<'_> {
    fn place(&mut self, place: Place) -> Slot {
        self.out.places.push(place);
        (self.out.places.len() - 1) as Slot
    }

    fn register(&mut self, class: Class, size: usize) -> Slot {
        let number = self.out.registers.len();
        self.out.registers.push(Register { class, size });
        self.place(Place::Register(number))
    }

    fn push(&mut self, class: Class, step: Step) {
        if class == Class::Fixed { self.out.prologue.push(step) } else { self.out.body.push(step) }
    }

    /// The value, loading it if it is a parameter not yet read.
    fn get(&mut self, v: V) -> Value {
        if let Some(value) = self.values[v.0 as usize] {
            return value;
        }
        let (op, ty) = self.context.function.values[v.0 as usize];
        let dtype = ty.dtype;
        let value = match op {
            Op::Input(index) => {
                let input = index as usize;
                let (class, read) = self.context.inputs[input];
                let slot = match read {
                    Read::Direct => self.place(Place::Input(input)),
                    Read::Load | Read::Repeated => {
                        let dst = self.register(class, dtype.size());
                        self.push(class, Step::Load { input, dst, class });
                        dst
                    }
                };
                Value { slot, class, lanes: None, dtype, computed: false }
            }
            Op::Const(constant) => self.constant(bits(constant, dtype), dtype),
            _ => self.constant(bits(Const::Float((self.context.length as f64).to_bits()), dtype), dtype),
        };
        self.values[v.0 as usize] = Some(value);
        value
    }

    fn constant(&mut self, bits: u64, dtype: DType) -> Value {
        let slot = self.place(Place::Constant(bits));
        Value { slot, class: Class::Fixed, lanes: None, dtype, computed: false }
    }

    /// A register with the value once per element of `class`.
    fn spread(&mut self, value: Value, class: Class) -> Slot {
        if value.class == class {
            return value.slot;
        }
        if let (Class::Lane, Some(slot)) = (class, value.lanes) {
            return slot;
        }
        let dst = self.register(class, value.dtype.size());
        self.spread_into(value, class, dst);
        dst
    }

    fn spread_into(&mut self, value: Value, class: Class, dst: Slot) {
        let by_row = value.class == Class::Row && !self.context.single_row;
        let primitive = table::spread(self.context.isa, value.dtype.size());
        // What is fixed is spread once per chunk, unless straight to an output.
        let to_output = matches!(self.out.places[dst as usize], Place::Output(_));
        let once = value.class == Class::Fixed && class == Class::Lane && !to_output;
        let shape = match class {
            _ if once => Shape::Most,
            Class::Fixed | Class::Tile => Shape::One,
            Class::Row => Shape::Rows,
            Class::Column => Shape::Most,
            Class::Lane if by_row => Shape::LanesByRow,
            Class::Lane => Shape::Lanes,
        };
        let (src, meaning) = ([value.slot; 3], Meaning::Same(value.dtype));
        let step = Step::Call { primitive, dst, src, step: [by_row as u8; 3], shape, splat: [true; 3], meaning };
        self.push(if once { Class::Fixed } else { Class::Lane }, step);
    }

    fn spread_value(&mut self, v: V, class: Class) -> Slot {
        let value = self.get(v);
        let slot = self.spread(value, class);
        if class == Class::Lane
            && let Some(value) = &mut self.values[v.0 as usize]
        {
            value.lanes = Some(slot);
        }
        slot
    }

    fn shape(class: Class) -> Shape {
        match class {
            Class::Fixed | Class::Tile => Shape::One,
            Class::Row => Shape::Rows,
            Class::Column | Class::Lane => Shape::Lanes,
        }
    }

    /// An operation on `operands`, by the first combination of splats that has a primitive.
    fn operation(
        &mut self,
        v: V,
        operands: &[V],
        primitive: impl Fn([bool; 3]) -> Option<Primitive>,
    ) -> Result<(), CompileError> {
        let (op, ty) = self.context.function.values[v.0 as usize];
        let values: Vec<Value> = operands.iter().map(|&v| self.get(v)).collect();
        let class = values.iter().map(|value| value.class).max().unwrap_or(Class::Fixed);
        // Short rows are cheaper spread than called row by row.
        let by_row = class == Class::Lane && !self.context.single_row;
        let wanted =
            |value: &Value| value.class != class && !(by_row && value.class == Class::Row && self.context.length < 24);
        let mut splat = [false; 3];
        values.iter().zip(&mut splat).for_each(|(value, splat)| *splat = wanted(value));
        // Spread operands from the first on until a primitive takes the rest as they are.
        let mut found = primitive(splat);
        for operand in 0..operands.len() {
            if found.is_none() && splat[operand] {
                splat[operand] = false;
                found = primitive(splat);
            }
        }
        let primitive = found.ok_or(CompileError::Undefined { op: format!("{op:?}"), dtype: ty.dtype })?;
        let (mut src, mut step, mut stepping) = ([0; 3], [0; 3], false);
        for (operand, &value) in operands.iter().enumerate() {
            if splat[operand] {
                src[operand] = values[operand].slot;
                let steps = by_row && values[operand].class == Class::Row;
                step[operand] = steps as u8;
                stepping |= steps;
            } else {
                src[operand] = self.spread_value(value, class);
            }
        }
        for operand in operands.len()..3 {
            src[operand] = src[0];
        }
        let dtype = ty.dtype;
        let dst = self.register(class, dtype.size());
        let shape = if stepping { Shape::LanesByRow } else { Self::shape(class) };
        let meaning = Meaning::Op(op, values.last().map_or(dtype, |value| value.dtype), dtype);
        self.push(class, Step::Call { primitive, dst, src, step, shape, splat, meaning });
        self.values[v.0 as usize] = Some(Value { slot: dst, class, lanes: None, dtype, computed: true });
        Ok(())
    }

    fn value(&mut self, v: V, folds: &dyn Fn(Reduce, DType) -> Option<Folds>) -> Result<(), CompileError> {
        let function = self.context.function;
        let (op, ty) = function.values[v.0 as usize];
        let isa = self.context.isa;
        let dtype = |v: V| function.values[v.0 as usize].1.dtype;
        match op {
            Op::Input(_) | Op::Const(_) | Op::Length => {}
            Op::Detach(a) => self.values[v.0 as usize] = Some(self.alias(a)),
            Op::Cast(a) => match table::cast(isa, dtype(a), ty.dtype) {
                Some(primitive) => self.operation(v, &[a], |_| Some(primitive))?,
                None => self.values[v.0 as usize] = Some(self.alias(a)),
            },
            Op::Unary(op, a) => self.operation(v, &[a], |_| table::unary(isa, op, ty.dtype))?,
            Op::Binary(op, a, b) => {
                self.operation(v, &[a, b], |[x, y, _]| table::binary(isa, op, ty.dtype, (x, y)))?;
            }
            Op::Compare(op, a, b) => {
                self.operation(v, &[a, b], |[x, y, _]| table::compare(isa, op, dtype(a), (x, y)))?;
            }
            Op::Select(a, b, c) => self.operation(v, &[a, b, c], |[x, y, z]| {
                (!x).then(|| table::select_value(isa, ty.dtype.size(), (y, z)))
            })?,
            Op::MulAdd(a, b, c) => {
                // The factors commute; a splat goes second.
                let (a, b) = if self.get(a).class < self.get(b).class { (b, a) } else { (a, b) };
                self.operation(v, &[a, b, c], |[x, y, z]| table::mul_add(isa, ty.dtype, (x, y, z)))?;
            }
            Op::Reduce(reduce, a) => {
                let src = self.spread_value(a, Class::Lane);
                let folds = folds(reduce, ty.dtype);
                let folds = folds.ok_or(CompileError::Undefined { op: format!("{op:?}"), dtype: ty.dtype })?;
                let dtype = ty.dtype;
                let dst = self.register(Class::Row, dtype.size());
                let (primitive, step, shape) = (folds.rows, [0; 3], Shape::LanesByRow);
                let (splat, meaning) = ([false; 3], Meaning::Op(op, dtype, dtype));
                self.push(Class::Row, Step::Call { primitive, dst, src: [src; 3], step, shape, splat, meaning });
                self.values[v.0 as usize] =
                    Some(Value { slot: dst, class: Class::Row, lanes: None, dtype, computed: true });
            }
        }
        // What occurs less often than elements costs next to nothing for each of them.
        let per_element = match (op, self.values[v.0 as usize]) {
            (Op::Input(index), _) => self.context.inputs[index as usize].0 == Class::Lane,
            (Op::Reduce(..), _) => true,
            (_, value) => value.is_some_and(|value| value.class == Class::Lane),
        };
        self.out.cost += if per_element { cost(op, ty.dtype) } else { 0.0 };
        for (output, &value) in function.outputs.iter().enumerate() {
            if value == v && self.context.outputs[output] == Write::Fold {
                let src = self.spread_value(v, Class::Lane);
                self.out.body.push(Step::Fold { output, src });
            }
        }
        Ok(())
    }

    fn alias(&mut self, v: V) -> Value {
        // The step that writes the value belongs to `v`: only one of the two names may move it to an output.
        Value { computed: false, ..self.get(v) }
    }

    /// Brings the values to the outputs that store them.
    fn finish(&mut self) -> Result<(), CompileError> {
        let function = self.context.function;
        for (output, &v) in function.outputs.iter().enumerate() {
            let value = self.get(v);
            match self.context.outputs[output] {
                Write::Fold => {}
                Write::Scatter(class) => {
                    let src = self.spread_value(v, class);
                    self.out.body.push(Step::Scatter { output, src, class });
                }
                Write::Direct(class) if value.computed && value.class == class => {
                    // The register that the value has becomes the output itself.
                    self.out.places[value.slot as usize] = Place::Output(output);
                    self.values[v.0 as usize] = Some(Value { computed: false, ..value });
                }
                Write::Direct(class) => {
                    let dst = self.place(Place::Output(output));
                    if value.class == class {
                        let primitive = table::copied(self.context.isa, value.dtype.size());
                        let (src, step, shape) = ([value.slot; 3], [0; 3], Self::shape(class));
                        let (splat, meaning) = ([false; 3], Meaning::Same(value.dtype));
                        self.out.body.push(Step::Call { primitive, dst, src, step, shape, splat, meaning });
                    } else {
                        self.spread_into(value, class, dst);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The bits of a constant as the dtype stores it.
pub fn bits(constant: Const, dtype: DType) -> u64 {
    match (constant, dtype) {
        (Const::Bool(value), _) => value as u64,
        (Const::Int(value), _) => value as u64,
        (Const::Float(bits), DType::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
        (Const::Float(bits), _) => bits,
    }
}
