//! Walks over DataFusion's trees, each compiled once.
//!
//! The walks of DataFusion and of its parser are generic over what is called at a node. So every caller gets a copy of
//! the whole walk, with all kinds of nodes in it: more than half of this crate's machine code, before. Here what is
//! called is a trait object.

use std::ops::ControlFlow;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

/// What is done with a node.
type Rewrite<'a, Node> = &'a mut dyn FnMut(Node) -> Result<Transformed<Node>>;
/// What looks at a node.
type Look<'a, Node> = &'a mut dyn FnMut(&Node) -> Result<TreeNodeRecursion>;

/// Walks over any tree.
pub(crate) trait Tree: TreeNode {
    /// `transform_up`: rewrites every node, children first.
    fn rewrite_up(self, rewrite: Rewrite<'_, Self>) -> Result<Transformed<Self>> {
        self.transform_up(rewrite)
    }

    /// `transform_down`: rewrites every node, parents first.
    fn rewrite_down(self, rewrite: Rewrite<'_, Self>) -> Result<Transformed<Self>> {
        self.transform_down(rewrite)
    }

    /// `apply`: looks at every node, parents first.
    fn look_at_all(&self, look: Look<'_, Self>) -> Result<TreeNodeRecursion> {
        self.apply(look)
    }

    /// `exists`: whether a node is wanted.
    fn holds(&self, wanted: &mut dyn FnMut(&Self) -> bool) -> Result<bool> {
        self.exists(|node| Ok(wanted(node)))
    }
}

impl<Node: TreeNode> Tree for Node {}

/// Walks over plans, with the plans of subqueries, and over the expressions of one node.
pub(crate) trait Plans {
    /// `transform_up_with_subqueries`.
    fn rewrite_plans_up(self, rewrite: Rewrite<'_, LogicalPlan>) -> Result<Transformed<LogicalPlan>>;

    /// `transform_down_with_subqueries`.
    fn rewrite_plans_down(self, rewrite: Rewrite<'_, LogicalPlan>) -> Result<Transformed<LogicalPlan>>;

    /// `apply_with_subqueries`.
    fn look_at_plans(&self, look: Look<'_, LogicalPlan>) -> Result<TreeNodeRecursion>;

    /// `map_expressions`: rewrites the expressions of this node alone.
    fn rewrite_expressions(self, rewrite: Rewrite<'_, Expr>) -> Result<Transformed<LogicalPlan>>;

    /// `apply_expressions`: looks at the expressions of this node alone.
    fn look_at_expressions(&self, look: Look<'_, Expr>) -> Result<TreeNodeRecursion>;
}

impl Plans for LogicalPlan {
    fn rewrite_plans_up(self, rewrite: Rewrite<'_, LogicalPlan>) -> Result<Transformed<LogicalPlan>> {
        self.transform_up_with_subqueries(rewrite)
    }

    fn rewrite_plans_down(self, rewrite: Rewrite<'_, LogicalPlan>) -> Result<Transformed<LogicalPlan>> {
        self.transform_down_with_subqueries(rewrite)
    }

    fn look_at_plans(&self, look: Look<'_, LogicalPlan>) -> Result<TreeNodeRecursion> {
        self.apply_with_subqueries(look)
    }

    fn rewrite_expressions(self, rewrite: Rewrite<'_, Expr>) -> Result<Transformed<LogicalPlan>> {
        self.map_expressions(rewrite)
    }

    fn look_at_expressions(&self, look: Look<'_, Expr>) -> Result<TreeNodeRecursion> {
        self.apply_expressions(look)
    }
}

/// What a walk over the syntax of a statement calls. A break ends the walk, and says why.
pub(crate) trait Visitor {
    /// Before the parts of a query.
    fn before_query(&mut self, _: &mut ast::Query) -> ControlFlow<String> {
        ControlFlow::Continue(())
    }

    /// After the parts of a query.
    fn after_query(&mut self, _: &mut ast::Query) -> ControlFlow<String> {
        ControlFlow::Continue(())
    }

    /// Before the parts of an expression.
    fn before_expr(&mut self, _: &mut ast::Expr) -> ControlFlow<String> {
        ControlFlow::Continue(())
    }

    /// After the parts of an expression.
    fn after_expr(&mut self, _: &mut ast::Expr) -> ControlFlow<String> {
        ControlFlow::Continue(())
    }

    /// Before the parts of a table of `FROM`.
    fn before_table(&mut self, _: &mut ast::TableFactor) -> ControlFlow<String> {
        ControlFlow::Continue(())
    }
}

/// Walks over a piece of syntax.
pub(crate) fn visit(syntax: &mut impl VisitMut, visitor: &mut dyn Visitor) -> ControlFlow<String> {
    syntax.visit(&mut Through(visitor))
}

struct Through<'a>(&'a mut dyn Visitor);

impl VisitorMut for Through<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<String> {
        self.0.before_query(query)
    }

    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<String> {
        self.0.after_query(query)
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<String> {
        self.0.before_expr(expr)
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<String> {
        self.0.after_expr(expr)
    }

    fn pre_visit_table_factor(&mut self, table: &mut ast::TableFactor) -> ControlFlow<String> {
        self.0.before_table(table)
    }
}
