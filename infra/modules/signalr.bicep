// Azure SignalR Service without servers of its own: the router's identity hands out tokens and sends.

@description('The name of the service.')
@minLength(3)
@maxLength(63)
param name string

@description('Where the service lives.')
param location string

@description('Tags of every resource.')
param tags object

@description('Pages that may connect.')
param origins string[]

@description('The id of the router\'s identity.')
param identityId string

@description('The object id of the router\'s identity, which gets the roles.')
param principalId string

var restOwner = 'fd53cd77-2268-407a-8f46-7e7863d0f521'

resource service 'Microsoft.SignalRService/signalR@2024-03-01' = {
  name: name
  location: location
  tags: tags
  kind: 'SignalR'
  sku: {
    name: 'Standard_S1'
    capacity: 1
  }
  properties: {
    disableLocalAuth: true
    features: [
      {
        flag: 'ServiceMode'
        value: 'Serverless'
      }
    ]
    cors: { allowedOrigins: origins }
  }
}

resource routerSends 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(service.id, identityId, restOwner)
  scope: service
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', restOwner)
    principalId: principalId
    principalType: 'ServicePrincipal'
  }
}

@description('The address of the service.')
output endpoint string = 'https://${service.properties.hostName}'
