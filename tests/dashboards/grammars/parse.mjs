// Parses queries with the grammar that Grafana's editor uses for them.
//
// Arguments: the language (`logql` or `traceql`), and a JSON list of queries. Prints a JSON list: for each query the
// names that it uses, or null if the query has a syntax error. A name is an attribute in TraceQL (`span.mcp.call.id`),
// and a label in LogQL (`server_slug`).
const [language, queries] = process.argv.slice(1);
const { parser } = await import(`@grafana/lezer-${language}`);
const NAME = { logql: "Identifier", traceql: "AttributeField" }[language];

const names = (query) => {
  const found = [];
  let invalid = false;
  parser.parse(query).iterate({
    enter: (node) => {
      invalid ||= node.type.isError;
      if (node.name === NAME) found.push(query.slice(node.from, node.to));
    },
  });
  return invalid ? null : found;
};

process.stdout.write(JSON.stringify(JSON.parse(queries).map(names)));
