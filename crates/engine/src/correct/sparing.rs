//! Rules of the engine that change nothing in most statements. Each walks and partly rebuilds the plan before it knows.
//! So a look at the plan decides whether a rule runs: for what it rewrites, or for an operator that it acts on.
//!
//! A rule that is left out here by mistake costs speed or, as some of the engine's rules have to run, an error; the
//! tests plan many statements both ways.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, ExpressionPlacement, JoinConstraint, JoinType, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use crate::trees::{Plans, Tree};

use super::walk;

type Rule = Arc<dyn OptimizerRule + Send + Sync>;
type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Has a rule run only where it may change something.
pub(super) fn sparing(rule: Rule) -> Rule {
    let may_change: fn(&LogicalPlan) -> Result<bool> = match rule.name() {
        "rewrite_set_comparison" => |plan| walk::hold(plan, &|part| matches!(part, Expr::SetComparison(_))),
        "eliminate_join" => |plan| walk::nodes(plan, &|node| Ok(matches!(node, LogicalPlan::Join(_)))),
        "eliminate_cross_join" => |plan| walk::nodes(plan, &|node| Ok(may_cross(node))),
        "common_sub_expression_eliminate" => |plan| walk::nodes(plan, &may_repeat),
        "extract_leaf_expressions" => {
            |plan| walk::hold(plan, &|part| part.placement() == ExpressionPlacement::MoveTowardsLeafNodes)
        }
        _ => return rule,
    };
    // The engine calls a rule with an order of its own for each node, not for a plan.
    if rule.apply_order().is_some() { rule } else { Arc::new(Sparing { rule, may_change }) }
}

/// Whether a node is an inner join that may become another one, or a filter whose conditions may become keys of the
/// join below it. The engine takes every inner join apart and puts it together again.
fn may_cross(node: &LogicalPlan) -> bool {
    let inner =
        |plan: &LogicalPlan| matches!(plan, LogicalPlan::Join(join) if join.join_type == JoinType::Inner);
    match node {
        LogicalPlan::Filter(filter) => inner(&filter.input),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            let is_plain = join.filter.is_none() && join.join_constraint == JoinConstraint::On;
            let is_keyed = matches!(join.on.as_slice(), [(Expr::Column(_), Expr::Column(_))]);
            !is_plain || !is_keyed || inner(&join.left) || inner(&join.right)
        }
        _ => false,
    }
}

/// Whether expressions of a node may have a part in common. Windows that follow each other are looked at as one.
fn may_repeat(node: &LogicalPlan) -> Result<bool> {
    if matches!(node, LogicalPlan::Window(_)) {
        return Ok(true);
    }
    let mut parts = 0;
    node.look_at_expressions(&mut |expr| {
        expr.look_at_all(&mut |part| {
            let is_plain = matches!(part, Expr::Column(_) | Expr::Literal(..) | Expr::Alias(_));
            parts += usize::from(!is_plain);
            Ok(if parts > 1 { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(parts > 1)
}

#[derive(Debug)]
struct Sparing {
    rule: Rule,
    may_change: fn(&LogicalPlan) -> Result<bool>,
}

impl OptimizerRule for Sparing {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match (self.may_change)(&plan)? {
            true => self.rule.rewrite(plan, config),
            false => Ok(Transformed::no(plan)),
        }
    }
}

type Plan = Arc<dyn ExecutionPlan>;

/// Has a rule run only where there is an operator that it acts on.
pub(super) fn sparing_physical(rule: PhysicalRule) -> PhysicalRule {
    let acts_on: fn(&Plan) -> bool = match rule.name() {
        "join_selection" => |plan| plan.children().len() > 1,
        "aggregate_statistics"
        | "LimitedDistinctAggregation"
        | "CombinePartialFinalAggregate"
        | "OptimizeAggregateOrder" => |plan| plan.is::<AggregateExec>(),
        // What has a filter, or makes one while it runs.
        "FilterPushdown" | "FilterPushdown(Post)" => |plan| {
            let filters = plan.is::<FilterExec>() || plan.is::<SortExec>() || plan.is::<AggregateExec>();
            filters || plan.children().len() > 1
        },
        "ProjectionPushdown" => |plan| plan.is::<ProjectionExec>() || plan.is::<NestedLoopJoinExec>(),
        "LimitPushPastWindows" => |plan| plan.is::<WindowAggExec>() || plan.is::<BoundedWindowAggExec>(),
        "TopKRepartition" | "PushdownSort" => |plan| plan.is::<SortExec>(),
        _ => return rule,
    };
    Arc::new(SparingPhysical { rule, acts_on })
}

#[derive(Debug)]
struct SparingPhysical {
    rule: PhysicalRule,
    acts_on: fn(&Plan) -> bool,
}

impl SparingPhysical {
    fn acts(&self, plan: &Plan) -> bool {
        (self.acts_on)(plan) || plan.children().into_iter().any(|child| self.acts(child))
    }
}

impl PhysicalOptimizerRule for SparingPhysical {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        if self.acts(&plan) { self.rule.optimize(plan, config) } else { Ok(plan) }
    }

    fn optimize_with_context(&self, plan: Plan, context: &dyn PhysicalOptimizerContext) -> Result<Plan> {
        if self.acts(&plan) { self.rule.optimize_with_context(plan, context) } else { Ok(plan) }
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionConfig;
    use futures::executor::block_on;

    use super::*;
    use crate::correct;

    const STATEMENTS: &[&str] = &[
        "SELECT 1 AS a, 'x' AS b",
        "SELECT a.v + b.v AS s FROM (VALUES (1), (2)) a(v) JOIN (VALUES (2), (3)) b(v) ON a.v = b.v \
         WHERE a.v IN (1, 2, 3)",
        "SELECT a.v FROM (VALUES (1), (2)) a(v), (VALUES (2), (3)) b(v) \
         WHERE a.v = b.v AND a.v + b.v > 2 OR a.v IS NULL",
        "SELECT a.v FROM (SELECT DISTINCT v FROM (VALUES (1), (1)) x(v)) a LEFT JOIN (VALUES (2)) b(v) ON a.v = b.v",
        "SELECT a.v FROM (VALUES (1), (2)) a(v) LEFT JOIN (SELECT DISTINCT v FROM (VALUES (1)) x(v)) b ON a.v = b.v",
        "SELECT DISTINCT a.v FROM (VALUES (1), (2)) a(v) JOIN (VALUES (1), (1)) b(v) ON a.v = b.v",
        "SELECT a.v FROM (VALUES (1), (2)) a(v) JOIN (VALUES (1), (9)) b(v) ON a.v * 2 < b.v + 1",
        "SELECT a.v FROM (VALUES (1)) a(v), (VALUES (2)) b(v), (VALUES (3)) c(v) WHERE a.v = c.v AND b.v = c.v",
        "SELECT a.v FROM (VALUES (1, 2)) a(v, w) JOIN (VALUES (2, 3)) b(v, w) ON a.v = b.v AND a.w = b.w \
         JOIN (VALUES (3)) c(v) ON c.v = b.v AND c.v + a.v > 1 WHERE a.w > 0",
        "SELECT a.v FROM (VALUES (1)) a(v) JOIN (VALUES (2)) b(v) ON a.v = b.v LEFT JOIN (VALUES (3)) c(v) ON a.v = c.v",
        "SELECT a.v FROM (VALUES (1)) a(v) JOIN (VALUES (2)) b(v) USING (v) WHERE a.v > 0",
        "SELECT v, count(*) AS n, sum(v) FROM generate_series(1, 9) x(v) GROUP BY v HAVING count(*) > 0 \
         ORDER BY n LIMIT 2",
        "SELECT count(*), min(v), count(DISTINCT v) FROM generate_series(1, 9) x(v)",
        "SELECT count(*) FROM (VALUES (1), (2)) x(v)",
        "SELECT DISTINCT v % 3 AS k FROM generate_series(1, 9) x(v) LIMIT 2",
        "SELECT v + 1 AS a, (v + 1) * 2 AS b, (v + 1) * (v + 1) AS c FROM generate_series(1, 9) x(v) WHERE v + 1 > 3",
        "SELECT s['a'] AS a, s['a'] + 1 AS b FROM (SELECT named_struct('a', v, 'b', v) AS s \
         FROM generate_series(1, 3) x(v)) t \
         WHERE s['a'] > 1 ORDER BY s['b']",
        "SELECT v, row_number() OVER (ORDER BY v) AS r, sum(v) OVER (ORDER BY v) \
         FROM generate_series(1, 9) x(v) LIMIT 3",
        "SELECT * FROM (SELECT v, rank() OVER (PARTITION BY v % 2 ORDER BY v) AS r \
         FROM generate_series(1, 9) x(v)) t WHERE r < 3",
        "SELECT v FROM generate_series(1, 9) x(v) ORDER BY v DESC LIMIT 3 OFFSET 2",
        "SELECT v FROM generate_series(1, 9) x(v) WHERE false UNION ALL SELECT 2 UNION ALL SELECT 3",
        "SELECT v FROM generate_series(1, 9) x(v) UNION SELECT 2 EXCEPT SELECT 3 INTERSECT SELECT 4",
        "SELECT v FROM (VALUES (1), (2)) a(v) WHERE EXISTS (SELECT 1 FROM (VALUES (2)) b(w) WHERE a.v = b.w)",
        "SELECT v, (SELECT max(w) FROM (VALUES (2)) b(w) WHERE a.v = b.w) AS m FROM (VALUES (1), (2)) a(v)",
        "SELECT v FROM (VALUES (1), (2)) a(v) WHERE v NOT IN (SELECT w FROM (VALUES (2), (NULL)) b(w))",
        "SELECT v FROM (VALUES (1), (2)) a(v) WHERE v > ALL (SELECT w FROM (VALUES (0)) b(w))",
        "SELECT a, b, count(*) FROM (VALUES (1, 2), (1, 3)) x(a, b) GROUP BY ROLLUP (a, b) ORDER BY a, b",
        "SELECT unnest(l) AS e FROM (SELECT make_array(v, v + 1) AS l FROM generate_series(1, 3) x(v)) t ORDER BY e",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
        "SELECT CASE WHEN v IN (1, 2) OR v = 3 THEN 'a' ELSE 'b' END AS k, v \
         FROM generate_series(1, 9) x(v) WHERE v = 1 OR v = 2",
    ];

    /// A session in which the engine's rules are wrapped.
    fn session(
        logical: impl Fn(Rule) -> Rule,
        physical: impl Fn(PhysicalRule) -> PhysicalRule,
    ) -> SessionState {
        let mut config = SessionConfig::new().with_target_partitions(2);
        correct::configure(&mut config);
        let state = SessionStateBuilder::new().with_config(config).with_default_features();
        correct::rules(state)
            .with_optimizer_rules(correct::safe_rules().map(logical).collect())
            .with_physical_optimizer_rules(correct::safe_physical_rules().map(physical).collect())
            .build()
    }

    /// The plans of all statements, as text.
    fn plans(state: &SessionState) -> Vec<String> {
        let plan = |text: &&str| {
            let plan = block_on(state.create_logical_plan(text)).unwrap();
            let plan = state.optimize(&plan).unwrap();
            let operators = block_on(state.query_planner().create_physical_plan(&plan, state)).unwrap();
            format!(
                "{text}\n{}\n{}",
                plan.display_indent_schema(),
                displayable(operators.as_ref()).indent(true)
            )
        };
        STATEMENTS.iter().map(plan).collect()
    }

    #[test]
    fn plans_are_those_of_all_rules() {
        let (all, some) = (session(|rule| rule, |rule| rule), session(sparing, sparing_physical));
        for (all, some) in plans(&all).iter().zip(plans(&some)) {
            assert_eq!(*all, some);
        }
    }

    /// Filters are not pushed into constants, so no statement above needs the rules that push filters.
    #[test]
    fn a_rule_that_is_left_out_by_mistake_is_found() {
        let all = plans(&session(|rule| rule, |rule| rule));
        for name in [
            "eliminate_join",
            "eliminate_cross_join",
            "common_sub_expression_eliminate",
            "extract_leaf_expressions",
        ] {
            let never = |rule: Rule| match rule.name() == name {
                true => Arc::new(Sparing { rule, may_change: |_| Ok(false) }) as Rule,
                false => rule,
            };
            assert_ne!(all, plans(&session(never, |rule| rule)), "{name}");
        }
        for name in ["join_selection", "aggregate_statistics", "ProjectionPushdown"] {
            let never = |rule: PhysicalRule| match rule.name() == name {
                true => Arc::new(SparingPhysical { rule, acts_on: |_| false }) as PhysicalRule,
                false => rule,
            };
            assert_ne!(all, plans(&session(|rule| rule, never)), "{name}");
        }
    }
}
