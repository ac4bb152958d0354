// A small shop in memory, as the servers of this folder answer for it: one schema, one set of resolvers, and a count of what ran.

const SCHEMA = `
  type Query {
    products(first: Int, search: String): [Product!]!
    product(id: ID!): Product
    branchList: [Branch!]!
    monthlySalesGrowth(year: Int): Int!
    broken: Int
  }
  type Mutation {
    setPrice(id: ID!, price: Int!): Product
    addProduct(name: String!): Product!
    deleteProduct(id: ID!): Boolean!
    fail: Int
  }
  type Product { id: ID! name: String! price: Int! branch: Branch! }
  type Branch { id: ID! name: String! }
`

const branches = [{ id: 'b1', name: 'North' }, { id: 'b2', name: 'South' }]
const products = new Map([1, 2, 3].map(id => [`${id}`, { id: `${id}`, name: `Product ${id}`, price: 10 * id, branch: branches[id % 2] }]))
let last = 3

/** How often each kind of operation ran. */
const calls = { query: 0, mutation: 0 }

const read = resolve => (parent, args) => { calls.query += 1; return resolve(args) }
const write = resolve => (parent, args) => { calls.mutation += 1; return resolve(args) }

const resolvers = {
  Query: {
    products: read(({ first, search }) => [...products.values()].filter(it => it.name.includes(search ?? '')).slice(0, first ?? undefined)),
    product: read(({ id }) => products.get(id) ?? null),
    branchList: read(() => branches),
    monthlySalesGrowth: read(({ year }) => (year ?? 0) + calls.query),
    broken: read(() => { throw new Error('broken') })
  },
  Mutation: {
    setPrice: write(({ id, price }) => { const product = products.get(id); if (product) product.price = price; return product ?? null }),
    addProduct: write(({ name }) => { last += 1; const product = { id: `${last}`, name, price: 0, branch: branches[0] }; products.set(product.id, product); return product }),
    deleteProduct: write(({ id }) => products.delete(id)),
    fail: write(() => { throw new Error('refused') })
  }
}

module.exports = { SCHEMA, resolvers, calls }
