//! A function with a meter.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Result, ScalarValue, plan_err, resources_datafusion_err, resources_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExpressionPlacement, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, StructFieldMapping,
};

use crate::correct::views::NAMES_TYPES;
use crate::limits::{
    FIXED_WIDTH_MAX, FUNCTION_BYTES_MAX, FUNCTION_RESULT_BYTES_MAX, FUNCTION_SLICE_BYTES,
    FUNCTION_SLICE_STEPS, FUNCTION_STEPS_MAX, FUNCTION_VALUES_MAX, NESTING_MAX,
};
use crate::trees::Tree;
use crate::wrapped::from_inner;

use super::concatenation::Concatenation;
use super::growth::{self, Growth, Made, Work, at};
use super::meter::{Meter, Place};

/// A function of the engine or of ours that a meter watches.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    work: Work,
    /// `None` before a statement has a meter.
    meter: Option<(Arc<Meter>, Place)>,
}

/// Calls of the same function are the same, wherever they stand in a plan.
impl PartialEq for Metered {
    fn eq(&self, other: &Metered) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Metered {}

impl Hash for Metered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Metered {
    /// The function behind the meter. `None` for a function that makes nothing: the engine looks for `get_field` by its
    /// type.
    pub(super) fn over(function: &Arc<ScalarUDF>, meter: Option<&Arc<Meter>>) -> Option<ScalarUDF> {
        let inner = match function.inner().downcast_ref::<Metered>() {
            Some(metered) => &metered.inner,
            None => function,
        };
        if inner.name() == "get_field" {
            return None;
        }
        let meter = meter.map(|meter| (meter.clone(), meter.place()));
        let (growth, work) = (Growth::of(inner.name()), Work::of(inner.name()));
        Some(ScalarUDF::new_from_impl(Metered { inner: inner.clone(), growth, work, meter }))
    }

    fn again(&self, function: ScalarUDF) -> ScalarUDF {
        let function = Arc::new(function);
        let meter = self.meter.as_ref().map(|(meter, _)| meter);
        Metered::over(&function, meter).unwrap_or_else(|| function.as_ref().clone())
    }

    fn check(&self) -> Result<()> {
        self.meter.as_ref().map_or(Ok(()), |(meter, _)| meter.check())
    }

    fn hold(&self, bytes: usize) -> Result<()> {
        self.meter.as_ref().map_or(Ok(()), |(meter, place)| meter.hold(*place, self.name(), bytes))
    }
}

/// Whether a call has only constants. Then it has one row, whatever the batch.
fn is_constant(call: &ScalarFunctionArgs) -> bool {
    !call.args.is_empty() && call.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
}

/// Bytes of a result.
fn bytes_of(value: &ColumnarValue) -> usize {
    match value {
        ColumnarValue::Array(array) => array.get_array_memory_size(),
        ColumnarValue::Scalar(value) => value.size(),
    }
}

impl ScalarUDFImpl for Metered {
    from_inner!(name, aliases, signature, return_type, coerce_types, documentation);

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        self.inner.inner().with_updated_config(config).map(|inner| self.again(inner))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if NAMES_TYPES.contains(&self.name()) {
            args.scalar_arguments.iter().flatten().try_for_each(|text| shallow(text))?;
        }
        let field = self.inner.return_field_from_args(args)?;
        match width(field.data_type()) > FIXED_WIDTH_MAX {
            true => plan_err!(
                "values of the type {} take more than {FIXED_WIDTH_MAX} bytes each",
                field.data_type()
            ),
            false => Ok(field),
        }
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.inner.simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) => {
                let meter = self.meter.as_ref().map(|(meter, _)| meter);
                ExprSimplifyResult::Simplified(behind(expr, meter)?)
            }
            original @ ExprSimplifyResult::Original(_) => original,
        })
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.preimage(args, literal, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.strictly_order_preserving(inputs)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn struct_field_mapping(&self, literals: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.inner.struct_field_mapping(literals)
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.placement(args)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check()?;
        let rows = if is_constant(&call) { 1 } else { call.number_rows };
        let made = match self.is_light(&call, rows) {
            true => self.inner.invoke_with_args(call)?,
            false => self.in_slices(call, rows)?,
        };
        self.hold(bytes_of(&made))?;
        Ok(made)
    }
}

impl Metered {
    /// Whether a call makes little and is done soon, whatever its values are.
    fn is_light(&self, call: &ScalarFunctionArgs, rows: usize) -> bool {
        let Growth::Linear(_) = self.growth else { return false };
        let taken = call.args.iter().map(|arg| match arg {
            ColumnarValue::Array(array) => array.get_array_memory_size(),
            // It may be copied or looked at for every row.
            ColumnarValue::Scalar(value) => value.size().saturating_mul(rows),
        });
        let taken = taken.fold(0, usize::saturating_add);
        match self.work {
            Work::Linear => taken <= FUNCTION_SLICE_BYTES,
            _ => (taken as u64).saturating_mul(taken as u64) <= FUNCTION_SLICE_STEPS,
        }
    }

    /// Calls the function for as many rows at a time as make a bounded result in a bounded time.
    fn in_slices(&self, call: ScalarFunctionArgs, rows: usize) -> Result<ColumnarValue> {
        let each = self.each(&call)?;
        let (mut from, mut held, mut made) = (0, 0, Vec::new());
        while from < rows {
            let (to, bytes) = self.slice(from, rows, &each)?;
            self.check()?;
            self.hold(held + bytes)?;
            if from == 0 && to == rows {
                return self.inner.invoke_with_args(call);
            }
            let part = self.inner.invoke_with_args(part(&call, from, to))?.into_array(to - from)?;
            held += part.get_array_memory_size();
            made.push(part);
            from = to;
        }
        if made.is_empty() {
            return self.inner.invoke_with_args(call);
        }
        // Offsets of text and lists have 32 bits.
        if held > FUNCTION_RESULT_BYTES_MAX {
            return resources_err!(
                "'{}' would make {held} bytes for {rows} rows; at most {FUNCTION_RESULT_BYTES_MAX} are allowed",
                self.name()
            );
        }
        self.hold(2 * held)?;
        let parts: Vec<&dyn Array> = made.iter().map(ArrayRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }

    /// The end of the slice that begins at `from`, and the bytes that it makes at most.
    fn slice(&self, from: usize, rows: usize, each: &Each) -> Result<(usize, usize)> {
        let (mut to, mut bytes, mut steps) = (from, 0_u128, 0_u128);
        while to < rows {
            let made = each.made(to);
            let took = each.steps(to);
            self.bound(made, took)?;
            let more = made.bytes.saturating_add(each.copied);
            let is_full = bytes + more > FUNCTION_SLICE_BYTES as u128
                || steps + took > u128::from(FUNCTION_SLICE_STEPS);
            if to > from && is_full {
                break;
            }
            (to, bytes, steps) = (to + 1, bytes + more, steps + took);
        }
        Ok((to, usize::try_from(bytes).unwrap_or(usize::MAX)))
    }

    /// Refuses a row that makes too much, or takes too long: nothing can stop a function within a row.
    fn bound(&self, made: Made, steps: u128) -> Result<()> {
        let bytes_max = match self.growth {
            Growth::Linear(factor) => {
                FUNCTION_BYTES_MAX.saturating_mul(u64::try_from(factor).unwrap_or(u64::MAX) * 2)
            }
            _ => FUNCTION_BYTES_MAX,
        };
        let steps = if self.work == Work::Linear { 0 } else { steps };
        for (made, allowed, unit) in [
            (made.values, FUNCTION_VALUES_MAX, "values"),
            (made.bytes, bytes_max, "bytes"),
            (steps, FUNCTION_STEPS_MAX, "steps"),
        ] {
            if made > u128::from(allowed) {
                return Err(resources_datafusion_err!(
                    "'{}' would make up to {made} {unit} at once; at most {allowed} are allowed",
                    self.name()
                ));
            }
        }
        Ok(())
    }

    fn each(&self, call: &ScalarFunctionArgs) -> Result<Each> {
        let sizes = call.args.iter().map(growth::value_sizes).collect::<Result<Vec<_>>>()?;
        let constants =
            call.args.iter().zip(&sizes).filter(|(arg, _)| matches!(arg, ColumnarValue::Scalar(_)));
        let copied = if is_constant(call) { 0 } else { constants.map(|(_, size)| at(size, 0)).sum() };
        Ok(Each {
            made: growth::each(self.name(), self.growth, &call.args)?,
            steps: self.work.each(&call.args)?,
            sizes,
            copied,
        })
    }
}

/// What each row makes.
struct Each {
    made: Box<dyn Fn(usize) -> Made>,
    steps: Option<Box<dyn Fn(usize) -> u128>>,
    /// Bytes of each argument in each row.
    sizes: Vec<Vec<u128>>,
    /// Bytes of the constants, which the engine may copy for every row.
    copied: u128,
}

impl Each {
    fn made(&self, row: usize) -> Made {
        (self.made)(row)
    }

    fn steps(&self, row: usize) -> u128 {
        match &self.steps {
            Some(steps) => steps(row),
            None => self.sizes.iter().map(|size| at(size, row)).sum(),
        }
    }
}

/// The call for the rows from `from` to `to`.
fn part(call: &ScalarFunctionArgs, from: usize, to: usize) -> ScalarFunctionArgs {
    let args = call.args.iter().map(|arg| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, to - from)),
        constant @ ColumnarValue::Scalar(_) => constant.clone(),
    });
    ScalarFunctionArgs { args: args.collect(), number_rows: to - from, ..call.clone() }
}

/// Refuses the name of a type that is nested too deeply: Arrow reads it by recursion without an end.
fn shallow(text: &ScalarValue) -> Result<()> {
    let Some(Some(name)) = text.try_as_str() else { return Ok(()) };
    let (mut depth, mut most) = (0_usize, 0);
    for byte in name.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = depth.max(most);
    }
    match most > NESTING_MAX {
        true => plan_err!("a type is nested {most} deep; at most {NESTING_MAX} are allowed"),
        false => Ok(()),
    }
}

/// Bytes that every value of a type takes, NULL too.
fn width(kind: &DataType) -> usize {
    let whole = |count: i32| usize::try_from(count).unwrap_or(0);
    match kind {
        DataType::FixedSizeBinary(bytes) => whole(*bytes),
        DataType::FixedSizeList(element, count) => {
            whole(*count).saturating_mul(width(element.data_type()).max(1))
        }
        DataType::List(element) | DataType::LargeList(element) => width(element.data_type()),
        DataType::Struct(fields) => {
            fields.iter().map(|field| width(field.data_type())).fold(0, usize::saturating_add)
        }
        other => other.primitive_width().unwrap_or(16),
    }
}

/// The expression with all its functions behind a meter.
fn behind(expr: Expr, meter: Option<&Arc<Meter>>) -> Result<Expr> {
    expr.rewrite_up(&mut |expr| Ok(watched(expr, meter))).data()
}

/// Whether [`watched`] may change an expression.
pub(super) fn is_watched(expr: &Expr) -> bool {
    let joins = |op| op == Operator::StringConcat;
    matches!(expr, Expr::ScalarFunction(_)) || matches!(expr, Expr::BinaryExpr(binary) if joins(binary.op))
}

/// The expression with its own function, if it is one, behind a meter.
pub(super) fn watched(expr: Expr, meter: Option<&Arc<Meter>>) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(call) => match Metered::over(&call.func, meter) {
            Some(func) => {
                let call = ScalarFunction { func: Arc::new(func), args: call.args };
                Transformed::yes(Expr::ScalarFunction(call))
            }
            None => Transformed::no(Expr::ScalarFunction(call)),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let operator = Arc::new(ScalarUDF::new_from_impl(Concatenation::default()));
            let func = Metered::over(&operator, meter).map_or(operator, Arc::new);
            let args = vec![*left, *right];
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        other => Transformed::no(other),
    }
}
