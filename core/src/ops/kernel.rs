//! The primitive that most operations are: a scalar function applied to broadcast elements, or a row function to rows.
//! Owns its shape rule, its vjp through the derivative table, and the entry point of `#[kernel]` functions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, RwLock};

use smallvec::SmallVec;
use tapeflow_ir::{Builder, Const, DType, Extent, Hole, Op as ScalarOp, ScalarFn, Template, TemplateRow, Type, V};

use super::activation::goes_by_result;
use super::{Flow, Op, Primitive};
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Vjp, World};
use crate::error::{Error, Problem};
use crate::locks;
use crate::precision;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// A template, compared by address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TemplateRef(pub &'static Template);

impl PartialEq for TemplateRef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}
impl Eq for TemplateRef {}
impl Hash for TemplateRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(std::ptr::from_ref(self.0).addr());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Function {
    /// As `#[kernel]` wrote it; instantiated when its dtype is known.
    Template(TemplateRef),
    /// A derivative.
    Instance(Arc<ScalarFn>),
}

/// One output of a scalar or row function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KernelOp {
    function: Function,
    output: u16,
}

/// What a template is for one dtype.
struct Instance {
    function: Arc<ScalarFn>,
    /// Each output alone.
    outputs: Vec<Arc<ScalarFn>>,
}

/// With which parameters are f32 beside half precision, as bits.
type InstanceKey = (TemplateRef, DType, u64);
static INSTANCES: LazyLock<RwLock<HashMap<InstanceKey, Arc<Instance>>>> = LazyLock::new(RwLock::default);

fn instance(template: TemplateRef, dtypes: impl Iterator<Item = DType>) -> Result<Arc<Instance>, Problem> {
    let (dtype, wide) = kernel_types(template.0, dtypes);
    let key = (template, dtype, wide);
    if let Some(found) = locks::read(&INSTANCES).get(&key) {
        return Ok(found.clone());
    }
    let function = template.0.instantiate_beside(dtype, |index| wide >> index & 1 == 1);
    let function = function.map_err(|e| Problem::Argument(e.to_string().into()))?.simplify();
    let outputs = (0..function.outputs.len())
        .map(|k| {
            let mut one = function.clone();
            one.outputs = vec![function.outputs[k]];
            Arc::new(one.simplify())
        })
        .collect();
    let made = Arc::new(Instance { function: Arc::new(function), outputs });
    locks::write(&INSTANCES).insert(key, made.clone());
    Ok(made)
}

/// How many templates have been instantiated, for how many dtypes: one of the caches that must not grow in a steady
/// loop.
pub(crate) fn instances() -> usize {
    locks::read(&INSTANCES).len()
}

/// The dtype that fills a template's hole: that of the first parameter with the hole, but half precision if another has
/// that. And which are f32 beside it, as bits.
fn kernel_types(template: &Template, dtypes: impl Iterator<Item = DType>) -> (DType, u64) {
    let (mut dtype, mut wide) = (None, 0);
    for (index, (_, found)) in template.inputs.iter().zip(dtypes).enumerate().filter(|(_, (p, _))| p.ty == Hole::Kernel)
    {
        dtype = dtype.filter(|_| !found.is_half()).or(Some(found));
        wide |= u64::from(found == DType::F32) << (index % 64);
    }
    let dtype = dtype.unwrap_or(DType::F32);
    (dtype, if dtype.is_half() { wide } else { 0 })
}

/// Whether the function reduces along rows (and so cannot be cut or moved along the last axis).
pub(crate) fn is_row(function: &ScalarFn) -> bool {
    function.values.iter().any(|(op, _)| matches!(op, ScalarOp::Reduce(..)))
}

/// The function for rows of `length` elements: the length becomes a constant.
pub(crate) fn with_length(function: &ScalarFn, length: usize) -> ScalarFn {
    let mut out = function.clone();
    for (op, ty) in &mut out.values {
        if matches!(op, ScalarOp::Length) {
            *op = ScalarOp::Const(Const::float(ty.dtype, length as f64));
        }
    }
    out
}

/// The length of the rows that parameters of extent `Lane` have.
fn row_length<'s>(function: &ScalarFn, shapes: impl Iterator<Item = &'s Shape>) -> usize {
    let lanes = function.inputs.iter().zip(shapes).filter(|(t, _)| t.extent == Extent::Lane);
    lanes.map(|(_, s)| s.last().copied().unwrap_or(1)).fold(1, |n, d| if n == 1 { d } else { n })
}

/// The function without the parameters it does not use, and which were kept.
pub(crate) fn prune(function: &ScalarFn) -> (ScalarFn, Vec<usize>) {
    let mut used = vec![false; function.inputs.len()];
    for (op, _) in &function.values {
        if let ScalarOp::Input(i) = op {
            used[*i as usize] = true;
        }
    }
    let kept: Vec<usize> = (0..used.len()).filter(|&i| used[i]).collect();
    let mut pruned = function.clone();
    pruned.inputs = kept.iter().map(|&i| function.inputs[i]).collect();
    for (op, _) in &mut pruned.values {
        if let ScalarOp::Input(i) = op {
            *i = kept.iter().position(|&k| k == *i as usize).unwrap_or_default() as u32;
        }
    }
    (pruned, kept)
}

/// The shape a function's result has on inputs of these shapes, rows being the last axis; `None` if they do not fit.
fn space(inputs: &[Type], row: bool, shapes: &[&Shape]) -> Option<Shape> {
    let mut out = Shape::default();
    for (_, shape) in inputs.iter().zip(shapes).filter(|(t, _)| !row || t.extent == Extent::Lane) {
        out = out.broadcast(shape)?;
    }
    if row {
        if out.is_empty() {
            return None;
        }
        // A scalar of a row kernel is one per row: its last axis, if it has one, is 1 and repeats.
        for (_, shape) in inputs.iter().zip(shapes).filter(|(t, _)| t.extent == Extent::Row) {
            if shape.last().is_some_and(|&l| l != 1) {
                return None;
            }
            out = out.broadcast(shape)?;
        }
    }
    Some(out)
}

fn last_as_one(mut shape: Shape) -> Shape {
    if let Some(last) = shape.0.last_mut() {
        *last = 1;
    }
    shape
}

impl KernelOp {
    pub fn template(template: &'static Template, output: u16) -> KernelOp {
        KernelOp { function: Function::Template(TemplateRef(template)), output }
    }

    pub fn instance(function: Arc<ScalarFn>) -> KernelOp {
        KernelOp { function: Function::Instance(function), output: 0 }
    }

    /// Whether it is what a template says.
    pub fn is(&self, template: &'static Template) -> bool {
        self.function == Function::Template(TemplateRef(template))
    }

    /// The whole function, with the index of the output that is meant.
    fn whole(&self, dtypes: impl Iterator<Item = DType>) -> Result<(Arc<ScalarFn>, usize), Problem> {
        Ok(match &self.function {
            Function::Template(t) => (instance(*t, dtypes)?.function.clone(), usize::from(self.output)),
            Function::Instance(f) => (f.clone(), 0),
        })
    }

    /// The function with the one output that is meant.
    pub fn single(&self, dtypes: impl Iterator<Item = DType>) -> Result<Arc<ScalarFn>, Problem> {
        Ok(match &self.function {
            Function::Template(t) => instance(*t, dtypes)?.outputs[usize::from(self.output)].clone(),
            Function::Instance(f) => f.clone(),
        })
    }

    /// dtype and shape of the result of a derivative in a world.
    pub fn infer_world(&self, world: &World, inputs: &[Id]) -> (DType, Shape) {
        let Function::Instance(function) = &self.function else {
            unreachable!("invariant: only derivatives are applied inside a world")
        };
        let row = is_row(function);
        let shapes: Vec<&Shape> = inputs.iter().map(|&i| world.shape(i)).collect();
        let mut shape = space(&function.inputs, row, &shapes).unwrap_or_default();
        let ty = function.values[function.outputs[0].0 as usize].1;
        if row && ty.extent == Extent::Row {
            shape = last_as_one(shape);
        }
        (ty.dtype, shape)
    }
}

impl Primitive for KernelOp {
    fn name(&self) -> Cow<'static, str> {
        match &self.function {
            Function::Template(t) => Cow::Borrowed(t.0.name),
            Function::Instance(_) => "vjp".into(),
        }
    }

    fn flow(&self, input: usize, types: &[&TensorType]) -> Flow {
        if types[input].dtype.is_float() {
            return Flow::Carries;
        }
        match &self.function {
            Function::Template(t) if converts(t.0, input) => Flow::Severed,
            // A float result is only chosen by this input; another may yet be converted.
            _ => match self.single(types.iter().map(|t| t.dtype)) {
                Ok(f) if !f.values[f.outputs[0].0 as usize].1.dtype.is_float() => Flow::Carries,
                _ => Flow::Stops,
            },
        }
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let dtypes: SmallVec<[DType; 4]> = cx.inputs.iter().map(|&i| cx.world.dtype(i)).collect();
        let (function, output) = match self.whole(dtypes.iter().copied()) {
            Ok(found) => found,
            Err(problem) => {
                cx.problem = Some(problem);
                return;
            }
        };
        let mut operands: Vec<Id> = cx.inputs.to_vec();
        if goes_by_result(self) && is_of_several(cx.world, cx.inputs[0]) {
            operands[0] = cx.node;
        }
        operands.push(cx.cotangent);
        let length = row_length(&function, cx.inputs.iter().map(|&i| cx.world.shape(i)));
        for i in 0..cx.inputs.len() {
            if !cx.wants(i) || !dtypes[i].is_float() {
                continue;
            }
            let Some(derivative) = function.vjp(output, i) else {
                cx.contribute_zero(i);
                continue;
            };
            let node = cx.node;
            let mut value = cx.world.apply(&with_length(&derivative, length), &operands, node);
            // The derivative may not depend on all that made the result wide (a sum's cotangent is one per row).
            let target = cx.input_shape(i);
            let all = cx.inputs.iter().chain([&node]).map(|&x| cx.world.shape(x).clone()).collect::<Vec<_>>();
            let full = all.iter().fold(Shape::default(), |wide, s| wide.broadcast(s).unwrap_or(wide));
            let full = if function.inputs[i].extent == Extent::Row { last_as_one(full) } else { full };
            value = cx.world.expand(value, full);
            let value = cx.world.sum_to(value, &target);
            cx.contribute(i, value);
        }
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let dtypes: SmallVec<[DType; 4]> = (0..cx.arity()).map(|i| cx.input_ty(i).dtype).collect();
        let function = self.single(dtypes.into_iter())?;
        let length = row_length(&function, (0..cx.arity()).map(|i| &cx.input_ty(i).shape));
        cx.apply(&with_length(&function, length))
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        let function = self.single(inputs.iter().map(|a| a.dtype))?;
        let shapes: Vec<Shape> = inputs.iter().map(|a| a.shape.clone()).collect();
        let refs: Vec<&Shape> = shapes.iter().collect();
        let row = is_row(&function);
        let space = space(&function.inputs, row, &refs).unwrap_or_else(|| ty.shape.clone());
        // Parameters pruned from a single output may still have shaped the result.
        let space = if row { space } else { ty.shape.clone() };
        Ok(crate::reference::apply(&function, inputs, &space, ty))
    }
}

/// Whether a value is computed element by element of several of its shape: to compute it again is to read them all.
fn is_of_several(world: &World, value: Id) -> bool {
    let is_kernel = matches!(world.op[value.index()], Op::Kernel(_)) && world.bound[value.index()].is_none();
    let whole = world.inputs[value.index()].iter().filter(|&&input| world.shape(input) == world.shape(value));
    is_kernel && whole.count() > 1
}

/// Whether input `input`, which is no float, is converted to a float in the function's value.
fn converts(template: &Template, input: usize) -> bool {
    let mut depends = vec![false; template.rows.len()];
    for (i, row) in template.rows.iter().enumerate() {
        depends[i] = match *row {
            TemplateRow::Input(k) => usize::from(k) == input,
            TemplateRow::Unary(_, a) | TemplateRow::Reduce(_, a) => depends[usize::from(a)],
            TemplateRow::Binary(_, a, b) | TemplateRow::Select(_, a, b) => {
                depends[usize::from(a)] || depends[usize::from(b)]
            }
            TemplateRow::Call { template, args, .. } => {
                let mut given =
                    args.iter().enumerate().filter(|(_, a)| depends[usize::from(**a)]).map(|(k, _)| k).peekable();
                let any = given.peek().is_some();
                if given.any(|k| converts(template, k)) {
                    return true;
                }
                any
            }
            TemplateRow::Cast(a, to) => {
                let float = match to {
                    Hole::Kernel => true,
                    Hole::Fixed(d) => d.is_float(),
                };
                if float && depends[usize::from(a)] {
                    return true;
                }
                depends[usize::from(a)]
            }
            _ => false,
        };
    }
    false
}

fn check(template: &'static Template, inputs: &[&Tensor]) -> Result<(Arc<Instance>, Shape), Problem> {
    if inputs.len() != template.inputs.len() {
        let (found, wanted) = (inputs.len(), template.inputs.len());
        return Err(Problem::Argument(format!("{found} tensors were given to a kernel of {wanted} parameters").into()));
    }
    let dtypes = || inputs.iter().map(|t| t.dtype());
    let (dtype, _) = kernel_types(template, dtypes());
    for (parameter, tensor) in template.inputs.iter().zip(inputs) {
        let wanted = match parameter.ty {
            Hole::Kernel => dtype,
            Hole::Fixed(d) => d,
        };
        // A number of the host is none of half precision: it is not rounded before it is computed with.
        let is_number = parameter.ty == Hole::Kernel && dtype.is_half() && tensor.dtype() == DType::F32;
        if tensor.dtype() != wanted && !(is_number && tensor.ndim() == 0) {
            return Err(match parameter.ty {
                Hole::Kernel => Problem::DTypes { left: dtype, right: tensor.dtype() },
                Hole::Fixed(d) => Problem::DType {
                    found: tensor.dtype(),
                    wanted: format!("{d} for the parameter `{}`", parameter.name).into(),
                },
            });
        }
    }
    let instance = instance(TemplateRef(template), dtypes())?;
    let shapes: SmallVec<[&Shape; 6]> = inputs.iter().map(|t| t.shape()).collect();
    let space = space(&instance.function.inputs, template.row, &shapes).ok_or_else(|| {
        let shapes = inputs.iter().map(|t| t.shape().clone()).collect();
        if template.row {
            let rule = "rows must broadcast and have a last axis, scalars must have 1 there".into();
            Problem::Shapes { shapes, rule }
        } else {
            Problem::Broadcast { shapes }
        }
    })?;
    Ok((instance, space))
}

/// Applies a kernel to tensors: the entry point of what `#[kernel]` generates.
///
/// # Shapes
/// Scalar kernels broadcast their inputs as NumPy does. In row kernels `Row` parameters broadcast and a row is the last
/// axis; scalar parameters have 1 there. Results that are one per row lose the last axis.
#[track_caller]
pub fn map<const OUTPUTS: usize>(template: &'static Template, inputs: &[&Tensor]) -> [Tensor; OUTPUTS] {
    if let Some(inputs) = precision::kernel_operands(template, inputs) {
        return map(template, &inputs.iter().collect::<Vec<_>>());
    }
    let site = Site::here();
    let checked = check(template, inputs);
    std::array::from_fn(|k| {
        let like = inputs.first().map(|t| t.ty().clone());
        let (instance, space) = match &checked {
            Ok(found) => found,
            Err(problem) => {
                let ty = like.unwrap_or_else(TensorType::scalar_f32);
                return Tensor::mistake_in(inputs, Error::new(template.name, problem.clone(), site), ty);
            }
        };
        let single = &instance.outputs[k];
        let out = instance.function.values[instance.function.outputs[k].0 as usize].1;
        let device = like.map_or_else(crate::device::Device::current, |t| t.device);
        let per_row = template.row && out.extent == Extent::Row;
        let shape = if per_row { last_as_one(space.clone()) } else { space.clone() };
        debug_assert_eq!(single.outputs.len(), 1);
        let ty = TensorType { dtype: out.dtype, shape, device };
        let made = Tensor::record_at(KernelOp::template(template, k as u16), inputs, ty, site);
        if per_row { made.drop_last_axis() } else { made }
    })
}

/// The function that returns its only parameter.
pub(crate) fn identity(ty: Type) -> ScalarFn {
    let mut b = Builder::new();
    let x: V = b.input(ty);
    b.finish(&[x])
}
