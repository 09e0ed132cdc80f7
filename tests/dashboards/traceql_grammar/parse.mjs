// Takes a JSON list of TraceQL queries, and writes for each of them the attributes that it names, or null if it is none.
import { parser } from "@grafana/lezer-traceql";

const attributes = (query) => {
  const named = [];
  let mistaken = false;
  parser.parse(query).iterate({
    enter: (node) => {
      mistaken ||= node.type.isError;
      if (node.name === "AttributeField") named.push(query.slice(node.from, node.to));
    },
  });
  return mistaken ? null : named;
};

process.stdout.write(JSON.stringify(JSON.parse(process.argv[1]).map(attributes)));
