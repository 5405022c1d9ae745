//! Template → function: fills the hole for the dtype and inlines calls.
//! The mistakes a kernel's author can make that the host compiler does not see come out here.

use crate::typing::TypeError;
use crate::{Builder, Const, DType, Extent, Hole, Op, RowId, ScalarFn, Template, TemplateRow, Type, V};
use std::fmt;

/// Why a template has no instance for a dtype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstantiateError {
    /// Name of the template the mistake is in: the one asked for, or one it calls.
    pub template: &'static str,
    /// The dtype asked for.
    pub dtype: DType,
    /// The row it is at; none if it is in the outputs.
    pub row: Option<usize>,
    /// What is wrong.
    pub cause: InstantiateCause,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstantiateCause {
    /// Operands that do not fit the operation.
    Operands(TypeError),
    /// A row or output names a row that is not before it.
    Order {
        /// What it names.
        row: RowId,
    },
    /// A float constant with a fraction, or out of range, in an integer kernel.
    FloatConstant {
        /// The constant's text.
        value: String,
    },
    /// A reduction or `length` in a template that is not a row kernel.
    NotARowKernel {
        /// Name of the operation.
        op: &'static str,
    },
    /// A call with the wrong number of arguments.
    ArgumentCount {
        /// Name of the called template.
        callee: &'static str,
        /// Its parameters.
        expected: usize,
        /// The arguments given.
        given: usize,
    },
    /// An argument of the wrong dtype, or an element where one value per row is needed.
    Argument {
        /// Name of the called template.
        callee: &'static str,
        /// Name of the parameter.
        parameter: &'static str,
        /// The parameter's type.
        expected: Type,
        /// The argument's type.
        given: Type,
    },
    /// A call for an output that the called template does not have.
    NoOutput {
        /// Name of the called template.
        callee: &'static str,
        /// Index of the output.
        output: usize,
        /// How many there are.
        outputs: usize,
    },
    /// A template that calls itself, directly or through others.
    Recursion {
        /// Name of the called template.
        callee: &'static str,
    },
}

impl fmt::Display for InstantiateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel `{}` for {}, ", self.template, self.dtype)?;
        match self.row {
            Some(row) => write!(f, "row {row}: ")?,
            None => write!(f, "outputs: ")?,
        }
        match &self.cause {
            InstantiateCause::Operands(error) => error.fmt(f),
            InstantiateCause::Order { row } => write!(f, "row {row} is not before it"),
            InstantiateCause::FloatConstant { value } => {
                write!(f, "the constant {value} is not a value of {}", self.dtype)
            }
            InstantiateCause::NotARowKernel { op } => write!(f, "`{op}` exists in row kernels only"),
            InstantiateCause::ArgumentCount { callee, expected, given } => {
                write!(f, "`{callee}` has {expected} parameters, {given} arguments are given")
            }
            InstantiateCause::Argument { callee, parameter, expected, given } => {
                write!(f, "parameter `{parameter}` of `{callee}` is {expected}, the argument is {given}")
            }
            InstantiateCause::NoOutput { callee, output, outputs } => {
                write!(f, "`{callee}` has {outputs} outputs, there is no output {output}")
            }
            InstantiateCause::Recursion { callee } => write!(f, "the call of `{callee}` never ends"),
        }
    }
}

impl std::error::Error for InstantiateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            InstantiateCause::Operands(error) => Some(error),
            _ => None,
        }
    }
}

impl Template {
    /// The function for one dtype, calls inlined, not simplified. Parameters keep their order.
    ///
    /// A float constant in an integer kernel is taken if it is a whole number of that dtype. For half precision it is
    /// the function for f32 between conversions: whatever it computes, it rounds once.
    ///
    /// # Errors
    /// An operation that is not defined for the dtype, operands of different dtypes, arguments that do not fit the
    /// parameters of a called template; the message names template, dtype and row.
    pub fn instantiate(&self, dtype: DType) -> Result<ScalarFn, InstantiateError> {
        let function = Instances { dtype: dtype.computed(), done: Vec::new(), open: Vec::new() }.get(self)?;
        Ok(if dtype.is_half() { self.halved(&function, dtype, &|_| false) } else { function })
    }

    /// The function for half precision where some parameters are f32 all the same: numbers that are not to be rounded.
    /// For other dtypes it is that of [`Template::instantiate`].
    ///
    /// # Errors
    /// As there.
    pub fn instantiate_beside(
        &self,
        dtype: DType,
        is_wide: impl Fn(usize) -> bool,
    ) -> Result<ScalarFn, InstantiateError> {
        let function = self.instantiate(dtype.computed())?;
        Ok(if dtype.is_half() { self.halved(&function, dtype, &is_wide) } else { function })
    }

    /// The function for f32 with parameters, but for the wide ones, and results of `half` precision.
    fn halved(&self, function: &ScalarFn, half: DType, is_wide: &dyn Fn(usize) -> bool) -> ScalarFn {
        let mut b = Builder::new();
        let arguments: Vec<V> = (self.inputs.iter().zip(&function.inputs).enumerate())
            .map(|(index, (input, &ty))| match input.ty {
                Hole::Kernel if !is_wide(index) => {
                    let stored = b.input(Type { dtype: half, ..ty });
                    b.cast(stored, ty.dtype)
                }
                _ => b.input(ty),
            })
            .collect();
        let results = b.inline(function, &arguments);
        let outputs: Vec<V> = (results.into_iter().zip(self.outputs))
            .map(|(value, &row)| if self.hole(row) == Hole::Kernel { b.cast(value, half) } else { value })
            .collect();
        b.finish(&outputs)
    }

    /// The type of a row of a template that can be instantiated.
    fn hole(&self, row: RowId) -> Hole {
        match self.rows[row as usize] {
            TemplateRow::Input(parameter) => self.inputs[parameter as usize].ty,
            TemplateRow::Float(_) | TemplateRow::Length => Hole::Kernel,
            TemplateRow::Int(_, dtype) => Hole::Fixed(dtype),
            TemplateRow::Bool(_) | TemplateRow::Compare(..) => Hole::Fixed(DType::Bool),
            TemplateRow::Unary(_, a)
            | TemplateRow::Binary(_, a, _)
            | TemplateRow::Select(_, a, _)
            | TemplateRow::MulAdd(a, ..)
            | TemplateRow::Reduce(_, a)
            | TemplateRow::Detach(a) => self.hole(a),
            TemplateRow::Cast(_, hole) => hole,
            TemplateRow::Call { template, output, .. } => template.hole(template.outputs[output as usize]),
        }
    }
}

/// The templates met while one is instantiated.
struct Instances {
    dtype: DType,
    /// By address: a template is itself, whatever its name.
    done: Vec<(*const Template, ScalarFn)>,
    open: Vec<*const Template>,
}

impl Instances {
    fn get(&mut self, template: &Template) -> Result<ScalarFn, InstantiateError> {
        if let Some((_, function)) = self.done.iter().find(|(done, _)| std::ptr::eq(*done, template)) {
            return Ok(function.clone());
        }
        let dtype = self.dtype;
        self.open.push(template);
        let fill = |hole| match hole {
            Hole::Kernel => dtype,
            Hole::Fixed(fixed) => fixed,
        };
        let mut b = Builder::new();
        let parameters: Vec<V> =
            template.inputs.iter().map(|input| b.input(Type { dtype: fill(input.ty), extent: input.extent })).collect();
        let mut rows: Vec<V> = Vec::with_capacity(template.rows.len());
        for (index, row) in template.rows.iter().enumerate() {
            let fail = |cause| InstantiateError { template: template.name, dtype, row: Some(index), cause };
            let at = |row: RowId| rows.get(row as usize).copied().ok_or(fail(InstantiateCause::Order { row }));
            let (op, own) = match *row {
                TemplateRow::Input(parameter) => match parameters.get(parameter as usize) {
                    Some(&value) => {
                        rows.push(value);
                        continue;
                    }
                    None => (Op::Input(parameter.into()), dtype),
                },
                TemplateRow::Float(value) => (Op::Const(constant(dtype, value).map_err(fail)?), dtype),
                TemplateRow::Int(value, own) => (Op::Const(Const::Int(value)), own),
                TemplateRow::Bool(value) => (Op::Const(Const::Bool(value)), DType::Bool),
                TemplateRow::Unary(op, a) => (Op::Unary(op, at(a)?), dtype),
                TemplateRow::Binary(op, a, b) => (Op::Binary(op, at(a)?, at(b)?), dtype),
                TemplateRow::Compare(op, a, b) => (Op::Compare(op, at(a)?, at(b)?), dtype),
                TemplateRow::Select(a, b, c) => (Op::Select(at(a)?, at(b)?, at(c)?), dtype),
                TemplateRow::MulAdd(a, b, c) => (Op::MulAdd(at(a)?, at(b)?, at(c)?), dtype),
                TemplateRow::Cast(a, to) => {
                    let value = at(a)?;
                    rows.push(b.cast(value, fill(to)));
                    continue;
                }
                TemplateRow::Reduce(op, a) => (Op::Reduce(op, at(a)?), dtype),
                TemplateRow::Length => (Op::Length, dtype),
                TemplateRow::Detach(a) => (Op::Detach(at(a)?), dtype),
                TemplateRow::Call { template: callee, output, args } => {
                    let args = args.iter().map(|&row| at(row)).collect::<Result<Vec<V>, _>>()?;
                    if self.open.iter().any(|open| std::ptr::eq(*open, callee)) {
                        return Err(fail(InstantiateCause::Recursion { callee: callee.name }));
                    }
                    let function = self.get(callee)?;
                    check_call(&b, callee, &function, output.into(), &args).map_err(fail)?;
                    rows.push(b.inline(&function, &args)[output as usize]);
                    continue;
                }
            };
            if !template.row && matches!(op, Op::Reduce(..) | Op::Length) {
                return Err(fail(InstantiateCause::NotARowKernel { op: op.name() }));
            }
            rows.push(b.try_emit(op, own).map_err(|error| fail(InstantiateCause::Operands(error)))?);
        }
        let outputs = template.outputs.iter().map(|&row| {
            let cause = InstantiateCause::Order { row };
            let error = InstantiateError { template: template.name, dtype, row: None, cause };
            rows.get(row as usize).copied().ok_or(error)
        });
        let function = b.finish(&outputs.collect::<Result<Vec<V>, _>>()?);
        self.open.pop();
        self.done.push((template, function.clone()));
        Ok(function)
    }
}

/// A float constant of the source as a constant of the kernel's dtype.
fn constant(dtype: DType, value: f64) -> Result<Const, InstantiateCause> {
    if dtype.is_float() {
        return Ok(Const::float(dtype, value));
    }
    let whole = Const::Int(value as i64);
    match value as i64 as f64 == value && whole.fits(dtype) {
        true => Ok(whole),
        false => Err(InstantiateCause::FloatConstant { value: format!("{value:?}") }),
    }
}

fn check_call(
    b: &Builder,
    callee: &Template,
    function: &ScalarFn,
    output: usize,
    args: &[V],
) -> Result<(), InstantiateCause> {
    let name = callee.name;
    let outputs = function.outputs.len();
    if output >= outputs {
        return Err(InstantiateCause::NoOutput { callee: name, output, outputs });
    }
    let expected = function.inputs.len();
    if args.len() != expected {
        return Err(InstantiateCause::ArgumentCount { callee: name, expected, given: args.len() });
    }
    for ((&arg, &expected), input) in args.iter().zip(&function.inputs).zip(callee.inputs) {
        let given = b.ty(arg);
        let too_many = given.extent == Extent::Lane && expected.extent == Extent::Row;
        if given.dtype != expected.dtype || too_many {
            return Err(InstantiateCause::Argument { callee: name, parameter: input.name, expected, given });
        }
    }
    Ok(())
}
