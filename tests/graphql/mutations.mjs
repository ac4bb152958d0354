// Spellings of one mutation: each is a request that some server may run, and that no cache may answer.

const GAPS = ['', ' ', '\n\t', ',', '\ufeff', '# query {\n', '#"""\r', '\r\n#q\r\n']
const PRICE = 'setPrice(id: "1", price: 7) { id price }'

/** Documents that set the price of product 1, each with the name of its operation where it needs one. */
function documents () {
  const found = []
  for (const gap of GAPS) {
    const operations = [
      [`${gap}mutation${gap || ' '}{ ${PRICE} }`],
      [`${gap}mutation M${gap}{ ${PRICE} }`],
      [`${gap}mutation query${gap}{ query: ${PRICE} }`],
      [`${gap}mutation M($p: Int = 7)${gap}{ setPrice(id: "1", price: $p) { ...P } } fragment P on Product { id price }`],
      [`fragment P on Product { id price }${gap} mutation M { a: setPrice(id: "1", price: 7) { ...P } }`],
      [`mutation M { ...F }${gap} fragment F on Mutation { ${PRICE} }`],
      [`query Q { branchList { id } }${gap} mutation M { ${PRICE} }`, 'M'],
      [`mutation M { ${PRICE} }${gap} query Q { branchList { id } }`, 'M'],
      [`mutation M @include(if: true)${gap}{ ${PRICE} }`]
    ]
    found.push(...operations)
  }
  return found
}

/** The bodies that send one document. */
function * bodies (query, operationName, batches) {
  const request = { query, operationName }
  yield JSON.stringify(request)
  yield JSON.stringify({ operationName, variables: {}, query })
  yield JSON.stringify({ extensions: {}, variables: null, query, operationName }, null, 2)
  yield JSON.stringify(request).replaceAll('mutation', '\\u006dutation')
  yield JSON.stringify(request).replace('"query":', '"\\u0071uery" :\t')
  yield JSON.stringify({ ...request, note: 1 })
  if (batches) {
    yield JSON.stringify([request])
    yield JSON.stringify([{ query: '{ branchList { id } }' }, request])
  }
}

/** All spellings, as requests. Those by GET have to be refused by their server. */
export function * spellings ({ batches }) {
  for (const [query, operationName] of documents()) {
    for (const body of bodies(query, operationName, batches)) yield { method: 'POST', body }
    const parameters = new URLSearchParams({ query, ...operationName && { operationName } })
    yield { method: 'GET', search: `?${parameters}` }
  }
}
