"""Strawberry behind FastAPI: the same shop as that of the other servers."""

import strawberry
from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter

calls = {"query": 0, "mutation": 0}


@strawberry.type
class Branch:
    id: strawberry.ID
    name: str


@strawberry.type
class Product:
    id: strawberry.ID
    name: str
    price: int
    branch: Branch


BRANCHES = [Branch(id="b1", name="North"), Branch(id="b2", name="South")]
PRODUCTS = {f"{id}": Product(id=f"{id}", name=f"Product {id}", price=10 * id, branch=BRANCHES[id % 2]) for id in (1, 2, 3)}


@strawberry.type
class Query:
    @strawberry.field
    def products(self, first: int | None = None, search: str | None = None) -> list[Product]:
        calls["query"] += 1
        return [it for it in PRODUCTS.values() if (search or "") in it.name][:first]

    @strawberry.field
    def product(self, id: strawberry.ID) -> Product | None:
        calls["query"] += 1
        return PRODUCTS.get(id)

    @strawberry.field
    def branch_list(self) -> list[Branch]:
        calls["query"] += 1
        return BRANCHES

    @strawberry.field
    def monthly_sales_growth(self, year: int | None = None) -> int:
        calls["query"] += 1
        return (year or 0) + calls["query"]

    @strawberry.field
    def broken(self) -> int | None:
        calls["query"] += 1
        raise ValueError("broken")


@strawberry.type
class Mutation:
    @strawberry.mutation
    def set_price(self, id: strawberry.ID, price: int) -> Product | None:
        calls["mutation"] += 1
        if product := PRODUCTS.get(id):
            product.price = price
        return product

    @strawberry.mutation
    def add_product(self, name: str) -> Product:
        calls["mutation"] += 1
        product = Product(id=f"{len(PRODUCTS) + 1}", name=name, price=0, branch=BRANCHES[0])
        PRODUCTS[product.id] = product
        return product

    @strawberry.mutation
    def delete_product(self, id: strawberry.ID) -> bool:
        calls["mutation"] += 1
        return PRODUCTS.pop(id, None) is not None

    @strawberry.mutation
    def fail(self) -> int | None:
        calls["mutation"] += 1
        raise ValueError("refused")


app = FastAPI()
app.include_router(GraphQLRouter(strawberry.Schema(Query, Mutation), allow_queries_via_get=True), prefix="/graphql")


@app.get("/calls")
def count():
    return calls
