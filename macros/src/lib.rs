//! The procedural macros of tapeflow. Entry points only: each macro is a pipeline `parse → model → check → expand` in a
//! folder of its own, reports every mistake at once, and names paths of the facade `::tapeflow` without depending on
//! it.

mod errors;
mod kernel;
mod module;
#[cfg(test)]
mod snapshot;

use proc_macro::TokenStream;

/// Makes a scalar or row function a differentiable operation of every device.
///
/// # Scalar kernels
/// ```ignore
/// /// y = x · σ(x)   (Elfwing et al. 2017)
/// #[kernel]
/// fn silu(x: f32) -> f32 { x / (1.0 + (-x).exp()) }
///
/// let y = silu::map(&x);      // every element of a tensor, on its device
/// let one = silu(1.0);        // the function itself is unchanged
/// ```
/// Parameters are `f32` (or all `f64`): either stands for every float dtype; and `bool`, `u8`, `i32`, `u32`, `i64`,
/// which stay what they are. The result is a scalar, or a tuple for several outputs.
///
/// # Row kernels
/// ```ignore
/// #[kernel]
/// fn softmax(x: Row) -> Row { let e = (x - x.max().detach()).exp(); e / e.sum() }
///
/// let p = softmax(&logits);   // along the last axis
/// ```
/// A parameter of type `Row` makes one. `max`, `min`, `sum`, `mean` and `len` reduce a row to a scalar; scalar
/// parameters occur once per row. The function itself takes tensors; its body is only type-checked. Of each element and
/// another value, the larger and the smaller are `maximum` and `minimum`. A scalar whose value differs between
/// elements, such as `if x > 0.0 { 1.0 } else { 0.0 }`, becomes a row by `Row::from`.
///
/// # Bodies
/// `let` (tuples, shadowing, `let mut` with assignment), arithmetic, comparisons, `&&`, `||`, `!`, `if` with `else`,
/// blocks, `as`, literals, constants, calls of other kernels, and these methods: `abs signum exp exp2 exp_m1 ln ln_1p
/// log2 log10 log sqrt cbrt recip powi powf sin cos sin_cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh
/// floor ceil round trunc fract min max clamp mul_add hypot copysign rem_euclid to_degrees to_radians is_nan
/// is_infinite is_finite`; of integers also `pow wrapping_add wrapping_sub wrapping_mul`. `detach(x)` stops the
/// cotangent, `erf(x)` is the error function. There are no loops, references, arrays or early returns.
///
/// Both branches of an `if` are computed, and one is selected. Constants are named in capitals, or by a path; those of
/// `std::f32::consts` are taken at full precision, others as they are. An integer literal that is passed to another
/// kernel is an `i32` unless it has a suffix.
///
/// # Numerics
/// `min` and `max` give NaN if either operand is NaN, where Rust's own give the other operand. `powi` with a literal
/// exponent is written as products. `&&` and `||` compute both operands, which shows in nothing but time.
///
/// # What is written
/// Beside the function, an empty type of the same name (one `use` brings both) with `TEMPLATE`, which devices and
/// derivatives are made from, and `map`.
#[proc_macro_attribute]
pub fn kernel(arguments: TokenStream, item: TokenStream) -> TokenStream {
    kernel::kernel(arguments.into(), item.into()).into()
}

/// Makes a struct a module: its parameters are found by path, and its forward expression becomes a method.
///
/// ```ignore
/// #[derive(Module)]
/// #[module(forward = |x| { let x = x + attn(ln_1(x)); x + mlp(ln_2(x)) })]
/// struct Block { ln_1: LayerNorm, attn: CausalSelfAttention, ln_2: LayerNorm, mlp: Mlp }
/// ```
///
/// # Fields
/// Every field is visited, in order, under its name (`0`, `1`, … in a tuple struct), and has to be a module, a
/// parameter, a buffer, or a `Vec`, `Option`, array or tuple of those.
/// - `#[module(skip)]` leaves a field alone: it holds no parameters.
/// - `#[module(buffer)]` says that the field is a `Buffer`: saved, not trained.
/// - `#[module(rename = "weight")]` gives it another name in paths.
/// - `#[module(recompute)]` keeps of each of its calls only the inputs for backward, where the rest is computed again:
///   the same bits in less memory (`tapeflow::recompute`). Of a list each element is a call. On the struct, beside
///   `forward`, it is about the whole forward.
///
/// # Forward
/// `forward = |x| …` implements `Forward`. With more inputs (`|x, mask|`), typed ones (`|x, cache: &mut KvCache|`) or
/// another result (`|x| -> (Tensor, Tensor) { … }`) it becomes a method of the struct, with a `vjp` beside it if all
/// inputs and the result are tensors. `|mut x|` gives an input that can be assigned.
///
/// A call of one name is that field's `forward` under its module path; a `Vec` or array of modules is applied one after
/// the other, an `Option` is the identity when `None`. `self.0(x)` calls a field of a tuple struct. A local variable of
/// the same name shadows the field, and a name that is no field is an ordinary function, as is every path:
/// `tapeflow::dropout(x)`. A skipped field that is a function pointer, `dyn Fn` or type parameter is called as a
/// function with borrowed tensors. Anything else of a field is reached through `self`: `self.n_head`,
/// `self.weight.tensor()`.
///
/// # The borrowing rule
/// Names of tensors are never moved. As operand of `+ - * / %` and unary `-`, as argument of a call, and in `&[a, b]`,
/// a tensor's name is borrowed; where it stands as a value of its own (`let y = x;`, the last expression of a block, an
/// element of a tuple), a new handle is made. A name is known to be a tensor if it is an input without a type or of
/// type `Tensor` or `&Tensor`, a `let` with such a type, or a `let` without a type whose value is
/// - the call of a field, or of `.forward` or `.tensor()`,
/// - arithmetic with a tensor, `Tensor::…(…)`, or a call of a function with a tensor among its arguments,
/// - a method call on a tensor, except for those that give something else, such as `shape`, `dims`, `len` and `item`,
/// - an `if`, `match` or block that ends in one of these.
///
/// In a tuple pattern all names are what the value is. Where the rule guesses wrong, write the type:
/// `let n: usize = x.count();`. Names inside macros (`println!`, `vec!`) are left as they are.
#[proc_macro_derive(Module, attributes(module))]
pub fn module(item: TokenStream) -> TokenStream {
    module::module(item.into()).into()
}
