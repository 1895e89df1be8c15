//! Aggregates over a moving window of rows.
//!
//! The engine takes a row that left the window off the aggregate. With floating-point numbers that does not give back
//! what was there before: after 1e16 has left, a 1 that was added to it is lost, and after infinity has left there is
//! only NaN. Other aggregates, such as `bool_and`, cannot be taken off at all.
//!
//! Here nothing is taken off. The window is two halves. The older half has an aggregate of each row together with all
//! later rows of the half, so that its oldest row can leave at once; the newer half has one aggregate. The window's is
//! that of both. When the older half is empty, the newer one takes its place. So each row is added twice at most.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature,
};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

/// The aggregates that cannot take a row off.
pub(super) const NAMES: &[&str] = &[
    "avg",
    "bit_and",
    "bit_or",
    "bool_and",
    "bool_or",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
];

/// Rows whose states are values at once, while the halves change places.
const CHUNK_ROWS: usize = 4_096;

/// An aggregate of the engine with windows of two halves.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Halved(Arc<AggregateUDF>);

impl Halved {
    pub(super) fn over(inner: Arc<AggregateUDF>) -> AggregateUDF {
        AggregateUDF::new_from_impl(Halved(inner))
    }

    fn inner(&self) -> &dyn AggregateUDFImpl {
        self.0.inner().as_ref()
    }
}

impl AggregateUDFImpl for Halved {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner().return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner().return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner().is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.inner().accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        // A sum of decimals loses nothing, and each half of distinct values would be as large as the half.
        let exact = !matches!(args.return_type(), DataType::Float64 | DataType::Float32);
        if args.is_distinct || exact && self.name() == "avg" {
            return self.inner().create_sliding_accumulator(args);
        }
        let inner = self.0.clone();
        moving(&args, move |args| inner.inner().accumulator(args))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner().state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner().create_groups_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner().order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner().simplify()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner().reverse_expr()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner().coerce_types(types)
    }

    fn default_value(&self, kind: &DataType) -> Result<ScalarValue> {
        self.inner().default_value(kind)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner().documentation()
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.inner().set_monotonicity(kind)
    }
}

/// An accumulator for a moving window over those that `make` makes.
///
/// # Errors
/// Those of `make`.
pub(super) fn moving(
    args: &AccumulatorArgs<'_>,
    make: impl Fn(AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> + Send + Sync + 'static,
) -> Result<Box<dyn Accumulator>> {
    let kept = Kept::of(args);
    let make = Box::new(move || make(kept.args()));
    Ok(Box::new(Moving { newer: make()?, make, newer_rows: Vec::new(), older: Vec::new(), older_rows: 0 }))
}

/// Arguments that an accumulator can keep.
struct Kept {
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Kept {
    fn of(args: &AccumulatorArgs<'_>) -> Kept {
        Kept {
            return_field: args.return_field.clone(),
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_owned(),
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        }
    }

    fn args(&self) -> AccumulatorArgs<'_> {
        AccumulatorArgs {
            return_field: self.return_field.clone(),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        }
    }
}

/// The aggregate of a moving window.
struct Moving {
    make: Box<dyn Fn() -> Result<Box<dyn Accumulator>> + Send + Sync>,
    /// The aggregate of the newer half.
    newer: Box<dyn Accumulator>,
    /// The arguments in each row of the newer half, the oldest row first.
    newer_rows: Vec<ScalarValue>,
    /// For each row of the older half the aggregate from it to the end of the half, the oldest row last: a column for
    /// each part of the aggregate's state.
    older: Vec<ArrayRef>,
    /// Rows of the older half that are still in the window.
    older_rows: usize,
}

impl fmt::Debug for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moving")
            .field("newer_rows", &self.newer_rows.len())
            .field("older_rows", &self.older_rows)
            .finish_non_exhaustive()
    }
}

/// One row for an accumulator.
fn arrays(values: &[ScalarValue]) -> Result<Vec<ArrayRef>> {
    values.iter().map(ScalarValue::to_array).collect()
}

/// Rows of values as columns.
fn columns(rows: &[Vec<ScalarValue>]) -> Result<Vec<ArrayRef>> {
    let width = rows.first().map_or(0, Vec::len);
    let column = |index: usize| ScalarValue::iter_to_array(rows.iter().map(|row| row[index].clone()));
    (0..width).map(column).collect()
}

impl Moving {
    /// Makes the newer half the older one. A row takes `width` values.
    fn turn(&mut self, width: usize) -> Result<()> {
        let mut later = (self.make)()?;
        let (mut chunks, mut states) = (Vec::new(), Vec::new());
        for row in std::mem::take(&mut self.newer_rows).rchunks(width.max(1)) {
            later.update_batch(&arrays(row)?)?;
            states.push(later.state()?);
            self.older_rows += 1;
            // As values they take several times as much as in columns.
            if states.len() == CHUNK_ROWS {
                chunks.push(columns(&states)?);
                states.clear();
            }
        }
        if !states.is_empty() {
            chunks.push(columns(&states)?);
        }
        let parts = chunks.first().map_or(0, Vec::len);
        let whole = |part: usize| {
            let parts: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk[part].as_ref()).collect();
            Ok(concat(&parts)?)
        };
        self.older = (0..parts).map(whole).collect::<Result<_>>()?;
        self.newer = (self.make)()?;
        Ok(())
    }
}

impl Accumulator for Moving {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in 0..values.first().map_or(0, |values| values.len()) {
            for values in values {
                self.newer_rows.push(ScalarValue::try_from_array(values, row)?);
            }
        }
        self.newer.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..values.first().map_or(0, |values| values.len()) {
            if self.older_rows == 0 {
                self.turn(values.len())?;
            }
            self.older_rows = self.older_rows.saturating_sub(1);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut all = (self.make)()?;
        if let Some(oldest) = self.older_rows.checked_sub(1) {
            let states: Vec<ArrayRef> = self.older.iter().map(|states| states.slice(oldest, 1)).collect();
            all.merge_batch(&states)?;
        }
        if !self.newer_rows.is_empty() {
            all.merge_batch(&arrays(&self.newer.state()?)?)?;
        }
        all.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.newer.size()
            + self.newer_rows.capacity() * size_of::<ScalarValue>()
            + self.older.iter().map(|states| states.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.newer.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.newer.merge_batch(states)
    }
}
