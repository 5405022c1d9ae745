//! Lowering a group's function to steps over tiles. Owns the choice of primitives, of what is computed how often, and of
//! registers; knows nothing of chunks and of running.
//!
//! Every value has a [`Class`], how often it occurs: once, once per tile, once per row, once per element. An operation runs
//! at the highest class of its operands; operands of lower classes are splats, or are spread where no primitive takes them.

use tapeflow_ir::{Const, DType, Op, Reduce, ScalarFn, V};

use super::CompileError;
use super::fold::Folds;
use super::isa::Isa;
use super::table;
use super::vector::Primitive;

/// How often a value occurs; in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Once: constants, host scalars, operands of stride 0.
    Fixed,
    /// Once per tile: operands of stride 0 along the axis that tiles are cut from.
    Tile,
    /// Once per row.
    Row,
    /// Once per element.
    Lane,
}

/// Where a value lies while a tile is computed; a number of an entry in the table of addresses.
pub type Slot = u16;

/// How a parameter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Its elements lie in memory as the tile wants them.
    Direct,
    /// They must be gathered or generated.
    Load,
}

/// How an output takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The tile's elements (`Lane`) or rows (`Row`) follow each other in memory.
    Direct(Class),
    /// They must be scattered.
    Scatter(Class),
    /// They are folded.
    Fold,
}

/// What an address in the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A register, by number.
    Register(usize),
    /// Bits of a constant.
    Constant(u64),
    /// A parameter read in place.
    Input(usize),
    /// An output written in place.
    Output(usize),
}

/// The counts a primitive is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One element.
    One,
    /// One row of one element per row of the tile.
    Rows,
    /// One row of all elements of the tile.
    Lanes,
    /// The rows of the tile.
    LanesByRow,
    /// One row of as many elements as a tile can have: to spread once for all tiles.
    Most,
}

/// One step of a tile.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Calls a primitive.
    Call {
        /// Which one.
        primitive: Primitive,
        /// Its result.
        dst: Slot,
        /// Its operands.
        src: [Slot; 3],
        /// Elements from row to row of splat operands.
        step: [u8; 3],
        /// Its counts.
        shape: Shape,
    },
    /// Gathers or generates a parameter into a register.
    Load {
        /// Which parameter.
        input: usize,
        /// The register.
        dst: Slot,
        /// At which class.
        class: Class,
    },
    /// Folds a value into an output.
    Fold {
        /// Which output.
        output: usize,
        /// The value, of class `Lane`.
        src: Slot,
    },
    /// Scatters a value to an output.
    Scatter {
        /// Which output.
        output: usize,
        /// The value.
        src: Slot,
        /// Its class.
        class: Class,
    },
}

impl Step {
    fn slots(&self) -> (Option<Slot>, [Option<Slot>; 3]) {
        match *self {
            Step::Call { dst, src: [a, b, c], .. } => (Some(dst), [Some(a), Some(b), Some(c)]),
            Step::Load { dst, .. } => (Some(dst), [None; 3]),
            Step::Fold { src, .. } | Step::Scatter { src, .. } => (None, [Some(src), None, None]),
        }
    }
}

/// A register: an element count class and the size of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// How many elements: 1 (`Fixed`, `Tile`), rows, or elements of a tile.
    pub class: Class,
    /// Bytes of each.
    pub size: usize,
}

/// A function as steps.
#[derive(Debug)]
pub struct Lowered {
    /// What each slot is.
    pub places: Vec<Place>,
    /// The registers.
    pub registers: Vec<Register>,
    /// Run once per chunk.
    pub prologue: Vec<Step>,
    /// Run for each tile.
    pub body: Vec<Step>,
    /// Estimated nanoseconds per element.
    pub cost: f64,
}

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
    /// Whether a tile has one row: then a splat need not step.
    pub single_row: bool,
}

/// Lowers a function.
///
/// # Errors
/// [`CompileError::Undefined`] for an operation that does not exist for its dtype.
pub fn lower(context: &Context<'_>, folds: &dyn Fn(Reduce, DType) -> Option<Folds>) -> Result<Lowered, CompileError> {
    let mut lowering = Lowering {
        context,
        values: vec![None; context.function.values.len()],
        out: Lowered { places: vec![], registers: vec![], prologue: vec![], body: vec![], cost: 0.0 },
    };
    let needed = needed(context.function);
    for (index, &needed) in needed.iter().enumerate() {
        if needed {
            lowering.value(V(index as u32), folds)?;
        }
    }
    lowering.finish()?;
    let mut out = lowering.out;
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
    size: usize,
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
        let size = ty.dtype.size();
        let value = match op {
            Op::Input(index) => {
                let input = index as usize;
                let (class, read) = self.context.inputs[input];
                let slot = match read {
                    Read::Direct => self.place(Place::Input(input)),
                    Read::Load => {
                        let dst = self.register(class, size);
                        self.push(class, Step::Load { input, dst, class });
                        dst
                    }
                };
                Value { slot, class, lanes: None, size, computed: false }
            }
            Op::Const(constant) => self.constant(bits(constant, ty.dtype), size),
            _ => self.constant(bits(Const::Float((self.context.length as f64).to_bits()), ty.dtype), size),
        };
        self.values[v.0 as usize] = Some(value);
        value
    }

    fn constant(&mut self, bits: u64, size: usize) -> Value {
        let slot = self.place(Place::Constant(bits));
        Value { slot, class: Class::Fixed, lanes: None, size, computed: false }
    }

    /// A register with the value once per element of `class`.
    fn spread(&mut self, value: Value, class: Class) -> Slot {
        if value.class == class {
            return value.slot;
        }
        if let (Class::Lane, Some(slot)) = (class, value.lanes) {
            return slot;
        }
        let dst = self.register(class, value.size);
        self.spread_into(value, class, dst);
        dst
    }

    fn spread_into(&mut self, value: Value, class: Class, dst: Slot) {
        let by_row = value.class == Class::Row && !self.context.single_row;
        let primitive = table::spread(self.context.isa, value.size);
        // What is fixed is spread once per chunk, unless straight to an output.
        let to_output = matches!(self.out.places[dst as usize], Place::Output(_));
        let once = value.class == Class::Fixed && class == Class::Lane && !to_output;
        let shape = match class {
            _ if once => Shape::Most,
            Class::Fixed | Class::Tile => Shape::One,
            Class::Row => Shape::Rows,
            Class::Lane if by_row => Shape::LanesByRow,
            Class::Lane => Shape::Lanes,
        };
        let step = Step::Call { primitive, dst, src: [value.slot; 3], step: [by_row as u8; 3], shape };
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
            Class::Lane => Shape::Lanes,
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
        let wanted = |value: &Value| {
            value.class != class && !(by_row && value.class == Class::Row && self.context.length < 24)
        };
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
        let size = ty.dtype.size();
        let dst = self.register(class, size);
        let shape = if stepping { Shape::LanesByRow } else { Self::shape(class) };
        self.push(class, Step::Call { primitive, dst, src, step, shape });
        self.values[v.0 as usize] = Some(Value { slot: dst, class, lanes: None, size, computed: true });
        Ok(())
    }

    fn value(&mut self, v: V, folds: &dyn Fn(Reduce, DType) -> Option<Folds>) -> Result<(), CompileError> {
        let function = self.context.function;
        let (op, ty) = function.values[v.0 as usize];
        let isa = self.context.isa;
        let dtype = |v: V| function.values[v.0 as usize].1.dtype;
        self.out.cost += cost(op, ty.dtype);
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
                let size = ty.dtype.size();
                let dst = self.register(Class::Row, size);
                let (primitive, step, shape) = (folds.rows, [0; 3], Shape::LanesByRow);
                self.push(Class::Row, Step::Call { primitive, dst, src: [src; 3], step, shape });
                self.values[v.0 as usize] = Some(Value { slot: dst, class: Class::Row, lanes: None, size, computed: true });
            }
        }
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
                        let primitive = table::copied(self.context.isa, value.size);
                        let (src, step) = ([value.slot; 3], [0; 3]);
                        self.out.body.push(Step::Call { primitive, dst, src, step, shape: Self::shape(class) });
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

/// Rough nanoseconds per element.
fn cost(op: Op, dtype: DType) -> f64 {
    use tapeflow_ir::{Binary, Unary};
    let wide = if dtype.size() == 8 { 2.0 } else { 1.0 };
    wide * match op {
        Op::Input(_) => 0.05,
        Op::Const(_) | Op::Length | Op::Detach(_) => 0.0,
        Op::Unary(op, _) => match op {
            Unary::Neg | Unary::Abs | Unary::Sign | Unary::Not | Unary::Floor | Unary::Ceil => 0.05,
            Unary::Round | Unary::Trunc | Unary::Sqrt => 0.1,
            Unary::Exp | Unary::Exp2 | Unary::ExpM1 | Unary::Tanh if dtype == DType::F32 => 0.3,
            Unary::Erf | Unary::Ln | Unary::Log2 | Unary::Log10 | Unary::Ln1p | Unary::Sin | Unary::Cos
                if dtype == DType::F32 =>
            {
                0.8
            }
            _ => 10.0,
        },
        Op::Binary(op, ..) => match op {
            Binary::Pow if dtype == DType::F32 => 2.0,
            Binary::Pow | Binary::Rem | Binary::Atan2 => 10.0,
            Binary::Div => 0.1,
            _ => 0.05,
        },
        Op::MulAdd(..) | Op::Compare(..) | Op::Select(..) | Op::Cast(_) | Op::Reduce(..) => 0.06,
    }
}

impl Lowered {
    /// Lets registers that are not alive at once share one. Those of the prologue, and those whose slot became an output,
    /// are left out of it.
    fn assign_registers(&mut self) {
        let mut last = vec![0; self.places.len()];
        for (index, step) in self.body.iter().enumerate() {
            step.slots().1.into_iter().flatten().for_each(|slot| last[slot as usize] = index);
        }
        let mut kept: Vec<Register> = Vec::new();
        let mut number = |register: Register, free: &mut Vec<usize>| {
            if let Some(at) = free.iter().position(|&n: &usize| kept[n] == register) {
                return free.swap_remove(at);
            }
            kept.push(register);
            kept.len() - 1
        };
        for step in &self.prologue {
            if let (Some(dst), _) = step.slots()
                && let Place::Register(old) = self.places[dst as usize]
            {
                self.places[dst as usize] = Place::Register(number(self.registers[old], &mut Vec::new()));
            }
        }
        let mut free: Vec<usize> = Vec::new();
        let mut body = vec![false; self.places.len()];
        for (index, step) in self.body.iter().enumerate() {
            let (dst, src) = step.slots();
            if let Some(dst) = dst
                && let Place::Register(old) = self.places[dst as usize]
            {
                self.places[dst as usize] = Place::Register(number(self.registers[old], &mut free));
                body[dst as usize] = true;
            }
            // The result was placed first: it never shares a register with an operand.
            for slot in src.into_iter().flatten() {
                if let (true, Place::Register(n)) = (body[slot as usize] && last[slot as usize] == index, self.places[slot as usize])
                    && !free.contains(&n)
                {
                    free.push(n);
                }
            }
        }
        self.registers = kept;
    }
}
